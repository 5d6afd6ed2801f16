"""Questions that can often be answered without looking: one option's text is right more often than the others."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from open_r1.grading.problems import options_in, render_problem, solution_letter


def answer_text(row: dict[str, Any]) -> str:
    """The text of the right option."""
    return options_in(row["problem"])[solution_letter(row["solution"])]


def usual_answers(rows: Sequence[dict[str, Any]]) -> dict[Hashable, str]:
    """By what is asked, modality and task: the text that is to be right most often, the first in the alphabet."""
    offered: dict[Hashable, set[str]] = defaultdict(set)
    for row in rows:
        offered[_asked(row)].add(answer_text(row))
    return {key: min(texts) for key, texts in offered.items()}


def with_usual_answers(rows: Sequence[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """As many rows as possible of which the usual answer is right in `share` (0 to 1), for each modality and task.

    The others are divided equally, and all options are offered as before, so that only the text tells.
    """
    draw, usual = random.Random(seed), usual_answers(rows)
    by_answer: dict[Hashable, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(rows):
        by_answer[_asked(row)][answer_text(row)].append(place)
    chosen: set[int] = set()
    for key, places in by_answer.items():
        others = len(places) - 1
        most = min(len(places[usual[key]]), *(int(len(p) * others * share / (1 - share)) for p in places.values()))
        for text, candidates in places.items():
            count = most if text == usual[key] else round(most * (1 - share) / share / others)
            chosen.update(draw.sample(candidates, min(count, len(candidates))))
    return [row for place, row in enumerate(rows) if place in chosen]


def with_fixed_letters(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the options of a modality and task always in one order, for direct answers of the tiny base.

    It can learn which letter goes with an image; which letter goes with a text it only tells by writing the text first.
    From one modality or task to the next the order begins one option further, so that no letter is the usual one.
    """
    options: dict[Hashable, list[str]] = {}
    for row in rows:
        options.setdefault(_asked(row), sorted(options_in(row["problem"]).values()))
    shifts = {key: place % len(options[key]) for place, key in enumerate(sorted(options, key=str))}
    orders = {key: texts[shifts[key] :] + texts[: shifts[key]] for key, texts in options.items()}
    return [_in_order(row, orders[_asked(row)]) for row in rows]


def _in_order(row: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    problem = render_problem(row["problem"].partition(" A)")[0], order)
    letter = next(letter for letter, text in options_in(problem).items() if text == answer_text(row))
    return {**row, "problem": problem, "solution": f"<answer> {letter} </answer>"}


def _asked(row: dict[str, Any]) -> Hashable:
    return row["modality"], row["task"]
