"""Where the answer of a completion stands: outside thoughts, in its last answer block or in the whole text.

Tags are read in all their spelling variants, cut ones included, in linear time.
"""

import re
from collections import deque
from typing import NamedTuple

from open_r1.grading.choice.option_texts import normalized
from open_r1.grading.formats import TAG


class AnswerPlace(NamedTuple):
    """The part of a completion that its answer is read from."""

    text: str
    in_block: bool
    cut: bool
    """Whether the length limit ended the block before its closing tag."""


def answer_place(text: str) -> AnswerPlace:
    """The last answer block outside thoughts, or without one the whole text outside thoughts, tags removed."""
    text = text.replace("\u2014", " - ")  # a dash between words; the others stand within words and numbers
    outside, unclosed = _without_thoughts(_SPECIAL.sub("", normalized(text)))
    block = _last_block(outside) or _block_at_end(unclosed)
    if block is not None:
        return AnswerPlace(block[0], True, block[1])
    return AnswerPlace(_without_partial_tag(TAG.sub(" ", outside)), False, False)


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


# ------------------------------------------------------------------------------------ where the letter is written

_LETTER_ALONE = r"(?<![0-9A-Za-z]){}(?=[ \t]{{0,8}}(?:[^\s0-9A-Za-z]|[\r\n]|$))"


def letter_place(text: str, letter: str) -> int | None:
    """The index at which a completion writes the letter of its answer; None if it writes none there.

    In the last answer block it is the first time that the letter stands alone; without a block it is the letter that
    the text outside thoughts begins with, or else the last one in it. A letter stands alone if a mark or the end of the
    line follows ("C", "C)", "C. Pneumonia"), not a word ("A mass"), and no letter or digit touches it.

    Args:
        text: the completion as the model wrote it.
        letter: the offered letter that the grader read, as the model saw it.
    """
    alone = re.compile(_LETTER_ALONE.format(letter))
    start, end = _written_block(text) or (-1, -1)
    if start >= 0:
        match = alone.search(text, start, end)
        return None if match is None else match.start()
    thoughts = _tags(text, _THINK_TAG)
    start = thoughts[-1][2] if thoughts else 0
    if thoughts and not thoughts[-1][0]:  # the last thought never ended
        return None
    places = [match.start() for match in alone.finditer(text, start)]
    if not places:
        return None
    begins = not any(character.isalnum() for character in text[start : places[0]])
    return places[0] if begins else places[-1]


def _written_block(text: str) -> tuple[int, int] | None:
    """Beginning and end of what the last answer block that is not empty holds."""
    tags = _tags(text, _ANSWER_TAG)
    for place in range(len(tags) - 1, -1, -1):
        closes, _, start = tags[place]
        end = tags[place + 1][1] if place + 1 < len(tags) else len(text)
        if not closes and text[start:end].strip():
            return start, end
    return None
