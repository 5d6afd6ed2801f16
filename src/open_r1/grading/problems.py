"""A question as text: its options written into it and read back, and the letter of its solution."""

import re
from collections.abc import Sequence

from open_r1.common.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKER = re.compile(r"([A-Z])\)")
_MAX_STARTS = 16  # a problem that writes "A)" more often than that is no problem of ours


def render_problem(question: str, options: Sequence[str]) -> str:
    """Write a problem in the published form: `Question? A)x, B)y, C)z`.

    Raises:
        UserError: fewer than 2 or more than 26 options, an empty one, or texts that could not be told apart
            again when `options_in` reads the problem.
    """
    texts = [option.strip() for option in options]
    if not 2 <= len(texts) <= len(LETTERS) or not all(texts):
        raise UserError(f"a problem needs 2 to 26 options that are not empty; these are {options!r:.300}")
    listed = ", ".join(f"{letter}){text}" for letter, text in zip(LETTERS, texts, strict=False))
    problem = f"{question.strip()} {listed}"
    if list(options_in(problem).values()) != texts:
        raise UserError(f"the options cannot be read back from {problem!r:.300}, so answers could not be judged")
    return problem


def render_lines(question: str, options: Sequence[str]) -> str:
    """Write a problem with every option on a line of its own: `Question?`, `A) x`, `B) y`, ...

    The form of text questions, whose options are long and may hold anything, `, B) ` included: the last line's
    letter says how many lines are options, so `options_in` reads back what went in, always. White space within
    an option becomes single spaces.

    Raises:
        UserError: an empty question, fewer than 2 or more than 26 options, or an empty one.
    """
    texts = [" ".join(option.split()) for option in options]
    if not question.strip():
        raise UserError("a problem needs a question; this one is empty")
    if not 2 <= len(texts) <= len(LETTERS) or not all(texts):
        raise UserError(f"a problem needs 2 to 26 options that are not empty; these are {options!r:.300}")
    return "\n".join([question.strip(), *(f"{letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))])


def options_in(problem: str) -> dict[str, str]:
    """The options that a problem offers, letter -> text, in order from A.

    Lines `A) x`, `B) y`, ... at the end of the problem (`render_lines`) are taken as they stand. Otherwise texts
    may hold commas, parentheses and things like `B)`: of all ways to read the markers the one with the most
    consecutive letters counts, then one without empty texts, then one whose markers close no parenthesis of an
    option's text, then the last.

    Raises:
        UserError: the problem does not offer at least A and B.
    """
    if listed := _lines_of_options(problem):
        return listed
    for separators in (
        ", ",
        ", \t\n;\uff0c\uff1b\u3001",
    ):  # the published form first, then whatever else sets two apart
        markers = _markers(problem, separators)
        starts = [index for index, (letter, _) in enumerate(markers) if letter == "A"]
        starts = starts[:_MAX_STARTS] + starts[_MAX_STARTS:][-_MAX_STARTS:]
        readings = [_reading(problem, markers[start:], nested) for start in starts for nested in (False, True)]
        if readings:
            best = max(readings, key=lambda reading: reading[0])[1]
            if len(best) > 1:
                return best
    raise UserError(f"no options 'A)..., B)...' in the problem {problem[:200]!r}, so no answer can be judged")


def _lines_of_options(problem: str) -> dict[str, str]:
    """The options that the last lines hold, one each, as `render_lines` writes them; {} where they do not."""
    last_line = problem.rpartition("\n")[2]
    count = LETTERS.find(last_line[:1]) + 1 if last_line[1:3] == ") " else 0
    lines = problem.rsplit("\n", count)[1:]
    written = zip(LETTERS, lines, strict=False)
    if count < 2 or len(lines) < count or not all(line.startswith(f"{letter}) ") for letter, line in written):
        return {}
    return {letter: line[3:] for letter, line in zip(LETTERS, lines, strict=False)}


def _markers(problem: str, separators: str) -> list[tuple[str, int]]:
    """Letter and position of each `X)` that may open an option."""
    markers = []
    for match in _MARKER.finditer(problem):
        letter, at = match.group(1), match.start()
        if letter == "A":
            opens = at == 0 or problem[at - 1].isspace()
        elif separators == ", ":
            opens = problem[max(0, at - 2) : at] == ", "
        else:
            opens = problem[at - 1] in separators
        if opens:
            markers.append((letter, at))
    return markers


def _reading(
    problem: str, markers: list[tuple[str, int]], nested: bool
) -> tuple[tuple[int, bool, bool, int], dict[str, str]]:
    """Follow the letters A, B, C, ... from the first marker; returns how good the reading is, and the reading.

    With `nested` false a marker that closes a parenthesis opened in the option before it does not count.
    """
    start = markers[0][1]
    places = [start]
    for letter, at in markers[1:]:
        if len(places) == len(LETTERS):
            break
        if letter != LETTERS[len(places)]:
            continue
        text = problem[places[-1] + 2 : at]
        if nested or text.count("(") <= text.count(")"):
            places.append(at)
    ends = [*places[1:], len(problem)]
    texts = [problem[at + 2 : end] for at, end in zip(places, ends, strict=True)]
    texts = [text.rstrip().removesuffix(",").strip() for text in texts[:-1]] + [texts[-1].strip()]
    return (len(texts), all(texts), not nested, start), dict(zip(LETTERS, texts, strict=False))


_SOLUTION = re.compile(r"\s*(?:<answer>\s*([A-Z])\s*</answer>|([A-Z]))\s*")


def solution_letter(solution: str) -> str:
    """The letter in a row's solution, `<answer> C </answer>` or a bare `C`.

    Raises:
        UserError: the solution is nothing of the kind.
    """
    match = _SOLUTION.fullmatch(solution)
    if match is None:
        raise UserError(f"the solution {solution!r:.200} is not of the form '<answer> C </answer>'")
    return match.group(1) or match.group(2)
