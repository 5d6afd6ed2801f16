"""The only judge: which options a problem offers, which letter a completion gives, and whether that is right.

Rewards and evaluation both come here, so a model is trained on exactly what it is scored on. The rules:

- Text inside `<think>` never counts, closed or not. A `</think>` without an opening ends a thought that began
  before the completion did.
- If there are answer blocks, the last one decides, also where the length limit cut it off. It must hold one
  offered letter (any case; brackets, punctuation, bold and `\\boxed{}` do not matter), a letter followed by its
  option's text, one option's full text, or a sentence such as "the answer is C".
- Without a block the text must be one of these itself, or end on a claim ("answer is C", "Answer: C", a boxed
  letter, in several languages) or on a line that is a letter.
- A letter that is not offered, two different letters, a letter beside the text of another option, a denied
  claim ("the answer is not C"), or nothing: unparsed. Never a guess.

Everything here runs in linear time: patterns have bounded repeats only, and claims are looked for from the end.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from open_r1.claims import last_claim, last_line, normalized, read_statement
from open_r1.errors import UserError
from open_r1.runs import Mode

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

GRADER_VERSION = 1
"""Raised whenever some completion is read differently than before. Result files record it, and a file graded by one
version is not continued with another. tests/test_grader_version.py compares many readings with this number."""


# ---------------------------------------------------------------------------------------------- the question


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
    last = problem.rpartition("\n")[2]
    count = LETTERS.find(last[:1]) + 1 if last[1:3] == ") " else 0
    lines = problem.rsplit("\n", count)[1:]
    written = zip(LETTERS, lines, strict=False)
    if count < 2 or len(lines) < count or not all(line.startswith(f"{letter}) ") for letter, line in written):
        return {}
    return {letter: line[3:] for letter, line in zip(LETTERS, lines, strict=False)}


def _markers(problem: str, separators: str) -> list[tuple[str, int]]:
    """Letter and position of each `X)` that may open an option."""
    found = []
    for match in _MARKER.finditer(problem):
        letter, at = match.group(1), match.start()
        if letter == "A":
            opens = at == 0 or problem[at - 1].isspace()
        elif separators == ", ":
            opens = problem[max(0, at - 2) : at] == ", "
        else:
            opens = problem[at - 1] in separators
        if opens:
            found.append((letter, at))
    return found


def _reading(
    problem: str, markers: list[tuple[str, int]], nested: bool
) -> tuple[tuple[int, bool, bool, int], dict[str, str]]:
    """Follow the letters A, B, C, ... from the first marker; returns how good the reading is, and the reading.

    With `nested` false a marker that closes a parenthesis opened in the option before it does not count.
    """
    first = markers[0][1]
    places = [first]
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
    return (len(texts), all(texts), not nested, first), dict(zip(LETTERS, texts, strict=False))


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


# ---------------------------------------------------------------------------------------------- the judgement


class Outcome(StrEnum):
    """What a completion came to."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"


class Grade(NamedTuple):
    """The outcome, and the letter that was read (None if unparsed)."""

    outcome: Outcome
    letter: str | None


def grade(text: str, solution: str, options: Mapping[str, str]) -> Grade:
    """Judge one completion. Never raises on any `text`; takes time linear in its length.

    Args:
        text: the completion as the model wrote it.
        solution: the row's solution, `<answer> C </answer>` or `C`.
        options: the offered options, as `options_in` returns them.

    Raises:
        UserError: the solution is malformed (rows are checked when data is loaded).
    """
    gold = solution_letter(solution)
    letter = extract_answer(text, options)
    if letter is None:
        return Grade(Outcome.UNPARSED, None)
    return Grade(Outcome.CORRECT if letter == gold else Outcome.WRONG, letter)


def extract_answer(text: str, options: Mapping[str, str]) -> str | None:
    """The offered letter that a completion gives by the rules of this module, or None."""
    outside = _without_thoughts(_SPECIAL.sub("", normalized(text)))
    block = _last_block(outside)
    if block is not None:
        content, cut = block
        return read_statement(content, options, cut) or last_claim(content, options) or None
    plain = _without_partial_tag(_TAG.sub(" ", outside))
    whole = read_statement(plain, options)
    if whole is not None:
        return whole
    claimed, line = last_claim(plain, options), last_line(plain, options)
    if claimed is None:
        return line
    return claimed if claimed and line in (None, claimed) else None


_SPECIAL = re.compile(r"<\|[A-Za-z_]{1,24}\|>")  # <|im_end|> and its like
_TAG = re.compile(r"<(?=[\s/TtAa])\s{0,3}/?\s{0,3}(?:think(?:ing)?|answer)\s{0,3}>", re.IGNORECASE)
_THINK_TAG = re.compile(r"<(?=[\s/Tt])\s{0,3}(/?)\s{0,3}think(?:ing)?\s{0,3}>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<(?=[\s/Aa])\s{0,3}(/?)\s{0,3}answer\s{0,3}>", re.IGNORECASE)


def _tags(text: str, pattern: re.Pattern[str]) -> list[tuple[bool, int, int]]:
    """(closes, start, end) of each tag, spelling variants included."""
    return [(bool(match[1]), match.start(), match.end()) for match in pattern.finditer(text)]


def _without_thoughts(text: str) -> str:
    """What stands outside thoughts. A nested opening needs a closing of its own, if there is one."""
    kept: list[str] = []
    depth, since, closed_before, last_close = 0, 0, False, None
    reopened: int | None = None  # where the first opening after the last closing of an unclosed thought stands
    for closes, start, end in _tags(text, _THINK_TAG):
        if not closes:
            if depth == 0:
                kept.append(text[since:start])
                last_close = None
            elif reopened is None:
                reopened = start
            depth += 1
        elif depth:
            depth, last_close, reopened = depth - 1, end, None
            if depth == 0:
                since, closed_before = end, True
        else:
            if closed_before:  # a stray closing; the thought itself was over
                kept.append(text[since:start])
            since, closed_before = end, True
    if depth == 0:
        kept.append(text[since:])
    elif last_close is not None:
        kept.append(text[last_close:reopened])
    return "\n".join(kept)


def answer_block(text: str) -> str | None:
    """What stands in the last answer block outside thoughts, stripped; None if there is no block."""
    block = _last_block(_without_thoughts(_SPECIAL.sub("", normalized(text))))
    return block[0].strip() if block is not None else None


def _last_block(text: str) -> tuple[str, bool] | None:
    """Content of the last answer block, and whether it lacks its closing tag; None if there is no block."""
    blocks: list[tuple[int, int, bool]] = []  # start, end, cut
    for closes, start, end in _tags(text, _ANSWER_TAG):
        if blocks and blocks[-1][2]:
            blocks[-1] = (blocks[-1][0], start, not closes)
        if not closes:
            blocks.append((end, len(text), True))
    if not blocks:
        return None
    start, end, cut = blocks[-1]
    if not text[start:].strip() and len(blocks) > 1 and blocks[-2][2]:
        start, end, cut = blocks[-2]  # <answer>C<answer>: a closing tag without its slash
    content = text[start:end]
    return (_without_partial_tag(content) if cut else content), cut


def _without_partial_tag(text: str) -> str:
    """Drop a tag at the very end that the length limit cut in two."""
    at = text.rfind("<", max(0, len(text) - 12))
    begun = "".join(text[at:].split()).lower()
    if at >= 0 and any(tag.startswith(begun) for tag in ("</answer>", "<answer>", "</think>", "<think>")):
        return text[:at]
    return text


# ------------------------------------------------------------------------------------------------- the form


FORMS: dict[Mode, tuple[str, ...]] = {
    Mode.THINK: ("<think>", "</think>", "<answer>", "</answer>"),
    Mode.NOTHINK: ("<answer>", "</answer>"),
    Mode.THINK_AFTER: ("<answer>", "</answer>", "<think>", "</think>"),
}
"""The tags of each mode, in order."""


_LONE_LETTER = re.compile(r"\s*[A-Z]\s*")


def follows_format(text: str, mode: Mode) -> bool:
    """Whether a completion has exactly the form of its mode: each tag once, in order, nothing outside.

    As in the published patterns, white space may stand around and between the blocks and a block may be empty:
    the format reward pays for form alone, what the blocks hold is the business of the accuracy reward. Other
    spellings of a tag, or a tag of another mode, are a second tag and cost the reward. `direct` is one capital letter.
    """
    if mode not in FORMS:
        return bool(_LONE_LETTER.fullmatch(text))
    form = FORMS[mode]
    matches = list(islice(_TAG.finditer(text), len(form) + 1))
    if tuple(match.group() for match in matches) != form:
        return False
    outside = [text[: matches[0].start()], text[matches[-1].end() :]]
    between = zip(matches[1::2], matches[2::2], strict=False)
    outside += [text[before.end() : after.start()] for before, after in between]
    return not any(piece.strip() for piece in outside)
