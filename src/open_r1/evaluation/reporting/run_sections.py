"""The sections about questions of choice: what is compared with what, the first screen, maps, and each run."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.changed_runs import Change
from open_r1.evaluation.comparing.matrices import accuracy_matrices, difference_matrices
from open_r1.evaluation.comparing.pairs import Comparison, pair_up, pair_with_base, pair_with_run
from open_r1.evaluation.comparing.scored_runs import Marks, Scored, all_marks, disjoint
from open_r1.evaluation.reporting.heatmaps import span_of
from open_r1.evaluation.reporting.review.agreement import agreement_section
from open_r1.evaluation.reporting.review.calibration import calibration_section
from open_r1.evaluation.reporting.review.consistency import consistency_section
from open_r1.evaluation.reporting.review.lengths import lengths_section
from open_r1.evaluation.reporting.review.letters import letters_section
from open_r1.evaluation.reporting.review.looking import looking_section, right_without_looking
from open_r1.evaluation.reporting.review.origins import origins_section
from open_r1.evaluation.reporting.review.power import power_section
from open_r1.evaluation.reporting.review.unparsed import unparsed_section
from open_r1.evaluation.reporting.sections.differences import comparison_section, improvement_section, stem_of
from open_r1.evaluation.reporting.sections.matrices import matrix_section
from open_r1.evaluation.reporting.sections.ranking import ranking_section
from open_r1.evaluation.reporting.sections.section import Section, drawn_maps, marked
from open_r1.evaluation.reporting.sections.single_run import run_section
from open_r1.evaluation.reporting.sections.text_benchmarks import Benchmarks, benchmark_section
from open_r1.evaluation.scoring.tallies import only_text
from open_r1.vocabulary.labels import family_of

MOST_MAPS = 8  # runs whose maps stand side by side; those of more stay in the sections of the runs


def report_folders(scored: Sequence[Scored]) -> dict[str, str]:
    """The folder of each run's files in the report, by its name; of a single run the report's folder."""
    if len(scored) == 1:
        return {scored[0].name: ""}
    names = [run.name if len(run.files) == 1 else stem_of(run.name) for run in scored]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, 1)]
    return {run.name: f"{name}/" for run, name in zip(scored, names, strict=True)}


def choose_comparisons(
    scored: Sequence[Scored],
    reported: int,
    text: Benchmarks | None,
    changed: Sequence[Change],
    baseline: Path | None,
) -> tuple[list[Comparison], list[Scored]]:
    """The comparisons, and the runs without a counterpart.

    Args:
        scored: all runs; those after the first `reported` are the references of --against.
        reported: how many are reported.
        text: the table of text sets, which may hold comparisons too.
        changed: runs to which something else was shown; without references they are compared with their like alone.
        baseline: a result file of the run that all others are compared with.

    Raises:
        UserError: no run has a counterpart, or `baseline` is not among the runs.
    """
    reported_runs, references = scored[:reported], scored[reported:]
    if not references:
        names = {change.changed.name for change in changed}
        ordinary = [run for run in reported_runs if run.name not in names]
        if baseline is not None:
            return pair_with_run(_run_of(baseline, ordinary), ordinary), []
        if len(ordinary) == 2 and not (ordinary[0].run == ordinary[1].run and disjoint(ordinary)):
            return [Comparison(ordinary[0], ordinary[1])], []
        of_base = pair_with_base(ordinary)
        same_training = len({run.trained_on for run in ordinary}) == 1  # otherwise a map of training sets shows them
        return of_base or (pair_with_run(ordinary[0], ordinary) if same_training else []), []
    comparisons, alone = pair_up(references, reported_runs)
    if not comparisons and not (text and text.comparisons):
        raise UserError(
            f"no file has a counterpart with the same questions among those of --against ({references[0].name}, ...), "
            "so nothing can be compared; give results on the same data"
        )
    return comparisons, alone


def _run_of(path: Path, scored: Sequence[Scored]) -> Scored:
    """The run that a result file belongs to."""
    for run in scored:
        if any(file.path.resolve() == path.resolve() for file in run.files):
            return run
    raise UserError(
        f"--baseline {path} is none of the result files with images and options as they are; name one of those"
    )


def sections_of_runs(
    scored: Sequence[Scored],
    reported: int,
    comparisons: Sequence[Comparison],
    alone: Sequence[Scored],
    text: Benchmarks | None,
    changed: Sequence[Change],
    with_items: bool,
) -> Iterable[Section]:
    """Tables of all runs first, then maps and matrices, what a reviewer asks, comparisons, and each run."""
    marks, folders = all_marks(scored), report_folders(scored)
    unseen = right_without_looking(changed)
    ranking = ranking_section(scored, comparisons, changed, unseen)
    names = {change.changed.name for change in changed}
    drawn = drawn_maps(len(scored))
    runs = [
        run_section(run, folders[run.name], number < drawn, unseen.get(run.name)) for number, run in enumerate(scored)
    ]
    ordinary = [section for run, section in zip(scored, runs, strict=True) if run.name not in names]
    differences = [*_improvements(comparisons, alone, marks)]
    span = span_of([change.comparison.differences for change in changed])
    for number, change in enumerate(changed, 1):
        has_map = number <= drawn_maps(len(changed))
        differences.append(comparison_section(change.comparison, f"changed_{number}", change.title, span, has_map))
        differences[-1].folded = True
    yield ranking
    if text is not None:
        yield benchmark_section(text)
    maps = Section(marked("Maps", marks))
    for section in [*ordinary, *differences] if len(ordinary) <= MOST_MAPS else ():
        (ranking if len(ordinary) == 1 and section is ordinary[0] else maps).figures |= section.figures
        section.figures = {}
    if maps.figures:
        yield maps
    for matrix in accuracy_matrices(scored[:reported]):
        yield matrix_section(matrix, marks)
    yield from _review(scored, names, comparisons, changed, with_items)
    yield from sorted(differences, key=lambda section: section.folded)
    yield from runs


def _review(
    scored: Sequence[Scored],
    changed_names: Collection[str],
    comparisons: Sequence[Comparison],
    changed: Sequence[Change],
    with_items: bool,
) -> Iterable[Section]:
    """The sections that a reviewer asks for, as far as their runs are there."""
    ordinary = [run for run in scored if run.name not in changed_names]
    sections = [
        looking_section(changed),
        consistency_section(changed),
        letters_section(scored),
        calibration_section(scored),
        agreement_section(ordinary),
        lengths_section(scored),
        origins_section(ordinary),
        power_section(comparisons),
        unparsed_section(scored, with_items),
    ]
    return filter(None, sections)


def _improvements(comparisons: Sequence[Comparison], alone: Sequence[Scored], marks: Marks) -> Iterable[Section]:
    """The difference maps, and the comparisons that are neither in them nor in the table of text sets."""
    matrices = difference_matrices(comparisons)
    for matrix in matrices:
        subtraction = f"{_subtraction(comparisons)}, on the same questions"
        section = improvement_section(matrix, subtraction, marks)
        names = [run.name for run in alone] + [name for comparison in comparisons for name in comparison.left_out]
        if names:
            section.texts.append(f"Left out, without a counterpart on the same questions: {', '.join(names)}.")
        yield section
    mapped = {matrix.family for matrix in matrices}
    span = span_of([comparison.differences for comparison in comparisons])
    for number, comparison in enumerate(comparisons, 1):
        trained = comparison.second.trained_on
        family = None if trained is None else family_of(trained)
        if len(comparisons) > 1 and family in mapped and comparison.second.families == {family}:
            continue
        if len(comparisons) > 1 and only_text(comparison.pairs):
            continue
        stem = "difference" if len(comparisons) == 1 else f"difference_{number}"
        section = comparison_section(comparison, stem, span=span, has_map=number <= drawn_maps(len(comparisons)))
        section.folded = len(comparisons) > 1
        yield section


def _subtraction(comparisons: Sequence[Comparison]) -> str:
    """The name of the difference: by modes or by methods, if each side has exactly one and they differ."""
    for key in ("mode", "method"):
        sides = [
            {run.file.manifest.get(key) for run in side}
            for side in zip(*((comparison.second, comparison.first) for comparison in comparisons), strict=True)
        ]
        if all(len(names) == 1 and None not in names for names in sides) and sides[0] != sides[1]:
            return f"{sides[0].pop()} minus {sides[1].pop()} ({len(comparisons)} pairs of runs)"
    return f"{len(comparisons)} runs minus their counterparts of --against"
