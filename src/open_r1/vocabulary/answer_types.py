"""The kinds of questions by the answer that they expect, and the spellings of yes and no."""

from enum import StrEnum


class AnswerType(StrEnum):
    """What a right answer is: a letter of the offered options, a word such as yes or no, or a free text."""

    CHOICE = "choice"
    CLOSED = "closed"
    OPEN = "open"


_YES = ("yes", "是的", "是", "有", "包含", "可以")
_NO = ("no", "不是", "否", "没有", "不包含", "不可以")
_YES_OR_NO = {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}


def yes_or_no(answer: str) -> bool | None:
    """Whether an answer says yes (True) or no (False), in the spellings of the published sets; None if neither."""
    return _YES_OR_NO.get(answer.strip().rstrip(".。").casefold())
