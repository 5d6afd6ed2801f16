"""The form that each mode asks of a completion, as the format reward checks it."""

import re
from itertools import islice

from open_r1.vocabulary.modes import Mode

TAG = re.compile(r"<(?=[\s/TtAa])\s{0,3}/?\s{0,3}(?:think(?:ing)?|answer)\s{0,3}>", re.IGNORECASE)

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
    matches = list(islice(TAG.finditer(text), len(form) + 1))
    if tuple(match.group() for match in matches) != form:
        return False
    outside = [text[: matches[0].start()], text[matches[-1].end() :]]
    between = zip(matches[1::2], matches[2::2], strict=False)
    outside += [text[before.end() : after.start()] for before, after in between]
    return not any(piece.strip() for piece in outside)
