"""The kinds of questions by the answer that they expect, and the spellings of these kinds and of yes and no."""

import re
from enum import StrEnum


class AnswerType(StrEnum):
    """What a right answer is: a letter of the offered options, a word such as yes or no, or a free text."""

    CHOICE = "choice"
    CLOSED = "closed"
    OPEN = "open"


# Letters only and in lower case: `CLOSED `, `close_ended` and `Close-ended` are one spelling.
_SPELLINGS: dict[str, AnswerType] = {
    **dict.fromkeys(("choice", "multiplechoice", "mcq"), AnswerType.CHOICE),
    **dict.fromkeys(("closed", "close", "closeended", "closedended", "yesno"), AnswerType.CLOSED),
    **dict.fromkeys(("open", "openended", "shortanswer", "freeform"), AnswerType.OPEN),
}


def parse_answer_type(text: str) -> AnswerType | None:
    """The kind that a published spelling means; None for a spelling that is not known."""
    return _SPELLINGS.get(re.sub(r"[\W\d_]", "", text.casefold()))


_YES = ("yes", "是的", "是", "有", "包含", "存在", "可以")
_NO = ("no", "不是", "否", "没有", "不包含", "不存在", "不可以", "不")
_YES_OR_NO = {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}


def yes_or_no(answer: str) -> bool | None:
    """Whether an answer says yes (True) or no (False), in the spellings of the published sets; None if neither."""
    return _YES_OR_NO.get(answer.strip().rstrip(".。").casefold())
