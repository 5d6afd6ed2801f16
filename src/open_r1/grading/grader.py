"""The only grader: which letter a completion gives, and whether it is right.

Rewards and evaluation both use it, so a model is trained on exactly what it is scored on. The rules:

- Text inside `<think>` never counts, closed or not. A `</think>` without an opening ends a thought that began
  before the completion did. "## Thinking" begins a thought that "## Final Response" ends. A thought that was never
  closed counts in one case: a complete answer block at its very end, where there is no block outside.
- If there are answer blocks, the last one decides, also where the length limit cut it off. It must hold one
  offered letter (any case; brackets, punctuation, bold and `\\boxed{}` do not matter), a letter followed by its
  option's text, one option's full text, or a sentence such as "the answer is C".
- Block or text may also be, or end on, a claim ("answer is C", "Answer: C", a boxed letter, "C is correct", "it
  should be C", in several languages) or a line that is a letter; begin with a letter and its reason ("C) Pneumonia,
  because"); end on a letter beside its text ("is most consistent with C) Pneumonia"); be one sentence about the image
  that names one option ("The image shows a CT scan"); or begin with the word of an option "Yes" or "No".
- Readings must agree. A letter that is not offered, two different letters, a letter beside the text of another
  option, a denied claim ("the answer is not C"), a claim after which another option is spoken for in whatever words
  (`later_statements`), or nothing: unparsed. Never a guess.

Everything here runs in linear time: patterns have bounded repeats only, and claims are looked for from the end.
"""

import re
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from open_r1.grading.answer_phrases import last_claim, last_line, read_statement
from open_r1.grading.formats import TAG
from open_r1.grading.option_texts import normalized, plain_text
from open_r1.grading.problems import solution_letter
from open_r1.grading.whole_texts import first_words, last_words, plain_sentence, yes_or_no

GRADER_VERSION = 2
"""Raised whenever some completion is read differently than before. Result files record it, and a file graded by one
version is not continued with another. tests/grading/test_grader_version.py compares many readings with this number."""


class Outcome(StrEnum):
    """The grade of a completion, without the letter."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"


class Grade(NamedTuple):
    """The outcome, and the letter that was read (None if unparsed)."""

    outcome: Outcome
    letter: str | None


def grade(text: str, solution: str, options: Mapping[str, str]) -> Grade:
    """Grade one completion. Never raises on any `text`; takes time linear in its length.

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
    text = text.replace("\u2014", " - ")  # a dash between words; the others stand within words and numbers
    outside, unclosed = _without_thoughts(_SPECIAL.sub("", normalized(text)))
    block = _last_block(outside) or _block_at_end(unclosed)
    if block is not None:
        return _read(*block, options)
    return _read(_without_partial_tag(TAG.sub(" ", outside)), False, options)


def _read(content: str, cut: bool, options: Mapping[str, str]) -> str | None:
    """The letter that a block or a text without blocks gives by the rules of this module, or None."""
    letter = read_statement(content, options, cut)
    if letter is not None:
        return letter
    claimed, plain = last_claim(content, options), plain_text(content)
    if claimed == "":
        return None
    readings = {claimed, last_line(content, options), first_words(plain, options), last_words(plain, options)}
    readings |= {plain_sentence(plain, options), yes_or_no(plain, options)}
    readings -= {None}
    return readings.pop() if len(readings) == 1 else None


_SPECIAL = re.compile(r"<\|[A-Za-z_]{1,24}\|>")  # <|im_end|> and its like
_THINK_TAG = re.compile(r"<(?=[\s/Tt])\s{0,3}(/?)\s{0,3}think(?:ing)?\s{0,3}>", re.IGNORECASE)
_FINAL_RESPONSE = re.compile(r"(?:^|\n)\s{0,3}#{1,4}\s{0,3}(?:final\s{1,3}response|thinking)\s{0,3}:?", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<(?=[\s/Aa])\s{0,3}(/?)\s{0,3}answer\s{0,3}>", re.IGNORECASE)


def _tags(text: str, pattern: re.Pattern[str]) -> list[tuple[bool, int, int]]:
    """(closes, start, end) of each tag, spelling variants included."""
    return [(bool(match[1]), match.start(), match.end()) for match in pattern.finditer(text)]


def _without_thoughts(text: str) -> tuple[str, str]:
    """What stands outside thoughts, and the thought that was never closed ("" if all were).

    A nested opening needs a closing of its own, if there is one.
    """
    pieces: list[str] = []
    depth, since, closed_before, last_close = 0, 0, False, None
    reopened: int | None = None  # where the first opening after the last closing of an unclosed thought stands
    for closes, start, end in _tags(text, _THINK_TAG):
        if not closes:
            if depth == 0:
                pieces.append(text[since:start])
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
                pieces.append(text[since:start])
            since, closed_before = end, True
    if depth == 0:
        pieces.append(text[since:])
    elif last_close is not None:
        pieces.append(text[last_close:reopened])
    unclosed = text[reopened if reopened is not None else since :] if depth else ""
    return _final_response("\n".join(pieces)), unclosed


def _final_response(text: str) -> str:
    """What follows the last heading "Final Response"; nothing of a text that ends within "## Thinking"."""
    headings = deque(_FINAL_RESPONSE.finditer(text), maxlen=1)
    if not headings:
        return text
    return text[headings[0].end() :] if "response" in headings[0].group().lower() else text[: headings[0].start()]


def _block_at_end(thought: str) -> tuple[str, bool] | None:
    """The complete answer block that an unclosed thought ends on, and False; None if it ends otherwise."""
    tags = deque(_ANSWER_TAG.finditer(thought), maxlen=2)
    if len(tags) < 2 or thought[tags[1].end() :].strip() or tags[0][1] or not tags[1][1]:
        return None
    return thought[tags[0].end() : tags[1].start()], False


def answer_block(text: str) -> str | None:
    """What stands in the last answer block outside thoughts, stripped; None if there is no block."""
    block = _last_block(_without_thoughts(_SPECIAL.sub("", normalized(text)))[0])
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
    tail = "".join(text[at:].split()).lower()
    if at >= 0 and any(tag.startswith(tail) for tag in ("</answer>", "<answer>", "</think>", "<think>")):
        return text[:at]
    return text
