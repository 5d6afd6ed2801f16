"""The kinds of questions by the answer that they expect."""

from enum import StrEnum


class AnswerType(StrEnum):
    """What a right answer is: a letter of the offered options, a word such as yes or no, or a free text."""

    CHOICE = "choice"
    CLOSED = "closed"
    OPEN = "open"
