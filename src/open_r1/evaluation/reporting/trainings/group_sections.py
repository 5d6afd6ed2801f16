"""What the recorded groups say: dead groups by question, rewards against each other, length against outcome."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from open_r1.evaluation.reporting.sections.section import Section
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, percent, with_error
from open_r1.evaluation.reporting.trainings.reading import Group, Training
from open_r1.evaluation.scoring.statistics import clustered_stderr

LISTED_QUESTIONS = 25
LENGTH_BINS = 5
QUESTION = "list=questions&item="
"""Address of a question in the page, before its id."""


def group_sections(trainings: Sequence[Training]) -> list[Section]:
    """The sections for which the runs have recorded groups."""
    recorded = [training for training in trainings if training.groups]
    if not recorded:
        return []
    sections = [_gradient_section(recorded), _rewards_section(recorded), _lengths_section(recorded)]
    return [section for section in sections if section.texts or section.sheets]


# --------------------------------------------------------------------------------------------- dead groups


def _gradient_section(trainings: Sequence[Training]) -> Section:
    section = Section("Dead groups by question")
    rows = []
    for training in trainings:
        by_question: dict[str, list[Group]] = defaultdict(list)
        for group in training.groups:
            by_question[group.id].append(group)
        dead = [group for group in training.groups if group.is_dead]
        never = {name: groups for name, groups in by_question.items() if all(group.is_dead for group in groups)}
        section.texts.append(
            f"{training.name}: {_share(len(dead), len(training.groups))} recorded groups are dead: their completions "
            f"all earned the same, so nothing is learned from them ({_outcomes(training, dead)}). "
            f"{_share(len(never), len(by_question))} questions had dead groups alone, "
            f"{sum(len(groups) > 1 for groups in never.values()):,} of them more than one."
        )
        for name, groups in never.items():
            if len(groups) < 2:
                continue  # of one group nothing follows about the question
            right, wrong = _outcome_counts(training, groups)
            steps = sorted(group.step for group in groups)
            counts = (str(len(groups)), str(right), str(wrong))
            rows.append([name, training.name, *counts, f"{steps[0]:,} to {steps[-1]:,}"])
    if rows:
        rows.sort(key=lambda row: -int(row[2]))
        notes = [f"The {LISTED_QUESTIONS} of {len(rows):,} with the most groups."] * (len(rows) > LISTED_QUESTIONS)
        head = ["question", "run", "groups", "all right", "all wrong", "steps"]
        section.sheets.append(
            Sheet("Questions with dead groups alone", head, rows[:LISTED_QUESTIONS], notes, address=QUESTION)
        )
    return section


def _outcome_counts(training: Training, groups: Iterable[Group]) -> tuple[int, int]:
    """How many groups are all right, and all wrong."""
    outcomes = [{right for right in training.rights(group) if right is not None} for group in groups]
    return outcomes.count({True}), outcomes.count({False})


def _outcomes(training: Training, groups: Sequence[Group]) -> str:
    right, wrong = _outcome_counts(training, groups)
    equal = len(groups) - right - wrong
    return f"{right:,} all right, {wrong:,} all wrong" + (f", {equal:,} otherwise equal" if equal else "")


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({percent(part / whole, 1)} %)"


# ------------------------------------------------------------------------------------------------- rewards


def _rewards_section(trainings: Sequence[Training]) -> Section:
    """Pearson's correlation of every two rewards over the completions for which both say something."""
    section = Section("Rewards against each other")
    names = list(dict.fromkeys(name for training in trainings for group in training.groups for name in group.rewards))
    rows = [
        [f"{name} and {other}", *(_correlation(training, name, other) for training in trainings)]
        for name, other in combinations(names, 2)
    ]
    if rows:
        note = f"Correlation over completions, n in brackets; {BLANK} where a reward is the same for all of them."
        section.sheets.append(
            Sheet("Correlation of rewards", ["rewards", *(training.name for training in trainings)], rows, [note])
        )
    return section


def _correlation(training: Training, name: str, other: str) -> str:
    pairs = [
        (first, second)
        for group in training.groups
        if name in group.rewards and other in group.rewards
        for first, second in zip(group.rewards[name], group.rewards[other], strict=True)
        if first is not None and second is not None
    ]
    if len({first for first, _ in pairs}) < 2 or len({second for _, second in pairs}) < 2:
        return f"{BLANK} ({len(pairs):,})"
    return f"{np.corrcoef(np.array(pairs).T)[0, 1]:.2f} ({len(pairs):,})"


# ------------------------------------------------------------------------------------------------- lengths


def _lengths_section(trainings: Sequence[Training]) -> Section:
    section = Section("Length against outcome")
    for training in trainings:
        graded = [
            (length, right, cut, group.id)
            for group in training.groups
            for length, right, cut in zip(group.lengths, training.rights(group), group.cut_off, strict=True)
            if right is not None
        ]
        if not graded:
            continue
        lengths = np.array([length for length, *_ in graded])
        means = [
            f"{name} ones {fmean(of_outcome):.1f} (n {len(of_outcome):,})"
            for name, wanted in (("right", True), ("wrong", False))
            if (of_outcome := [length for length, right, *_ in graded if right is wanted])
        ]
        section.texts.append(f"{training.name}: mean tokens of completions: {', '.join(means)}.")
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1), method="higher"))
        rows = []
        for place, low in enumerate(edges[:-1] if len(edges) > 1 else edges):
            last = place >= len(edges) - 2
            high = edges[-1] if last else edges[place + 1] - 1
            members = [entry for entry in graded if low <= entry[0] <= high]
            rights = [float(right) for _, right, *_ in members]
            error = clustered_stderr(rights, [name for *_, name in members])
            span = f"{low:,} to {high:,}" if low < high else f"{low:,}"
            cut_off = percent(fmean(cut for _, _, cut, _ in members), 1)
            rows.append([span, f"{len(members):,}", with_error(fmean(rights), error), cut_off])
        note = "Bins of tokens between quantiles; ± is the standard error clustered by question."
        section.sheets.append(Sheet(training.name, ["tokens", "n", "right (%)", "cut off (%)"], rows, [note]))
    return section
