"""Made-up runs over rows for the item browser: reasoning of many words, a blind run, and one with shuffled options."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from report_files import write

from open_r1.evaluation.answering.perturbations import View
from open_r1.evaluation.scoring.results import Result, Sample, graded_result, voted_result
from open_r1.grading.grader import Outcome
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import prompt_name, wording

_OPENINGS = ("The image shows", "Looking at the image, I see", "In this scan there is", "First, I consider", "Note")
_SUBJECTS = ("a region of {} signal", "a {} lesion", "an area that looks {}", "the {} margin", "a {} structure")
_ADJECTIVES = (
    *("bright", "dark", "round", "irregular", "well defined", "diffuse", "calcified", "hyperintense", "hypodense"),
    *("enlarged", "symmetric", "asymmetric", "cystic", "solid", "ring-shaped", "lobulated", "faint", "coarse"),
)
_PLACES = (
    *("in the left lobe", "near the midline", "beside the ventricle", "at the periphery", "in the lower third"),
    *(
        "along the wall",
        "within the parenchyma",
        "at the level of the hilum",
        "in the posterior segment",
        "of the cortex",
    ),
)
_ENDINGS = (
    *("which is typical of {}", "so {} is the most likely option", "and this argues against {}", "consistent with {}"),
    *("which I would not expect in {}", "therefore {} can be excluded", "as is often described for {}"),
)


def thought(draw: random.Random, options: Sequence[str], sentences: int) -> str:
    """Sentences of reasoning about options."""
    parts = []
    for _ in range(sentences):
        subject = draw.choice(_SUBJECTS).format(draw.choice(_ADJECTIVES))
        ending = draw.choice(_ENDINGS).format(draw.choice(options))
        parts.append(f"{draw.choice(_OPENINGS)} {subject} {draw.choice(_PLACES)}, {ending}.")
    return " ".join(parts)


def answered(
    rows: Sequence[Any],
    key: Callable[[Any], str],
    skill: float,
    mode: Mode,
    seed: int,
    view: View | None = None,
    sentences: int = 5,
) -> list[Result]:
    """Results of a run that is right with the probability `skill`, in letters of the problem as it was shown."""
    results = []
    for row in rows:
        draw = random.Random(f"{seed} {row['id']}")
        shown = (view or View()).problem(row)
        options = options_in(shown.problem)
        right = shown.shown_letter(solution_letter(row["solution"]))
        letter = right if draw.random() < skill else draw.choice([*options])
        output = f"<answer> {letter} </answer>"
        if mode is Mode.THINK:
            output = f"<think> {thought(draw, [*options.values()], draw.randint(1, 2 * sentences))} </think> {output}"
        if draw.random() < 0.04:
            output = output.partition("<answer>")[0] + "I cannot tell from this image"
        tokens = len(output) // 4
        original = shown.original_letter(letter)
        graded = graded_result(
            dict(row) | {"problem": shown.problem, "solution": f"<answer> {right} </answer>"}, "", output, 0
        )
        sample = Sample(output, graded.outcome or Outcome.WRONG, graded.letter and original, tokens)
        result = voted_result(row, key(row), [sample], seen=draw.random() < 0.2, cut_off=int(tokens > 240))
        results.append(replace(result, asked=None if shown.problem == row["problem"] else shown.problem))
    return results


def write_runs(folder: Path, rows: Sequence[Any], key: Callable[[Any], str], **manifest: Any) -> list[Path]:
    """Base, SFT, think and no-think, and of think a blind run and one with shuffled options; returns their files."""
    paths = []
    runs = [
        ("base", 0.3, Mode.NOTHINK, {}),
        ("sft", 0.55, Mode.NOTHINK, {}),
        ("think", 0.6, Mode.THINK, {}),
        ("nothink", 0.65, Mode.NOTHINK, {}),
        ("think-blind", 0.35, Mode.THINK, {"image": "none"}),
        ("think-shuffled", 0.5, Mode.THINK, {"options": "shuffled"}),
    ]
    for name, skill, mode, change in runs:
        checkpoint = name.partition("-")[0]
        about = {"checkpoint": checkpoint, "checkpoint_sha256": checkpoint, "mode": mode.value}
        about |= {"prompt_name": prompt_name(mode), "prompt": wording(mode), "max_new_tokens": 256}
        view = View(options=change["options"]) if "options" in change else None
        results = answered(rows, key, skill, mode, seed=len(paths) if "-" not in name else 2, view=view)
        paths.append(write(folder / f"{name}.jsonl", results, **about, **manifest, **change))
    return paths
