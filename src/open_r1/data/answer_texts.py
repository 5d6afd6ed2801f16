"""Matches a published answer to an option of its question: for preparing data, not for grading models.

Published files write one option in several ways: `Spleen.` and `Spleen`, `&lt;5 mm` and `<5 mm`, `A: Spleen`, `(D)`,
`C) Spleen`. They are normalized only for the comparison; the texts are kept, except that letters in front of all
options are removed. An answer that could mean two options is refused.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from open_r1.common.errors import UnusableInput, UserError
from open_r1.grading.choice.option_texts import normalized
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem, solution_letter

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31}\d{0,2});")
_COMPOSED = 4096  # characters; composing takes quadratic time on a long run of combining marks
_MARK = re.compile(r"\s*(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z])[).:])\s*")
_ENDS = ("?", ".", ":", "!", "\uff1f", "\u3002", "\uff1a")  # of a question
_BARE = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:]{0,2}\s*")
_INLINE = re.compile(r"(?<!\S)(?:\(([A-Z])\)\s?|([A-Z])\.\s|([A-Z]):\s?)")


def as_read(text: str) -> str:
    """The text as a reader sees it: entities, spaces, dashes and quotes in one form, and without a final period."""
    text = normalized(_ENTITY.sub(lambda entity: html.unescape(entity[0]), text))
    if len(text) <= _COMPOSED and not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split()).rstrip("。. ") or text.strip()


def bare_letter(text: str) -> str | None:
    """The letter of `C`, `c`, `(C)`, `C)`, `C.` or `C:`; None for anything else."""
    match = _BARE.fullmatch(normalized(text))
    return match[1].upper() if match else None


def without_marks(options: Mapping[str, str]) -> dict[str, str]:
    """Options by letter. If every text begins with its letter (`B: Spleen`), these letters are removed."""
    texts = {}
    for letter, text in options.items():
        mark = _MARK.match(text)
        if mark is None or letter not in mark.groups():
            return dict(options)
        texts[letter] = text[mark.end() :].strip()
    return texts if all(texts.values()) else dict(options)


def letter_by_text(answer: str, options: Mapping[str, str]) -> str:
    """The letter of the option that an answer means, where answers are texts; a letter if no option reads like it.

    Args:
        answer: as the data gives it.
        options: letter -> text.

    Raises:
        UnusableInput: `solution-not-offered`, or `answer-contradicts` for a letter beside another option's text.
    """
    letters = _same(answer, options, str.strip) or _same(answer, options, lambda text: text.strip().casefold())
    if not letters:
        letters = _same(answer, options, as_read) or _same(answer, options, lambda text: as_read(text).casefold())
        letters |= {bare_letter(answer) or ""} & options.keys()
    if not letters and (marked := _letter_with_text(answer, options)):
        return marked
    if len(letters) == 1:
        return letters.pop()
    problem = f"could be {' or '.join(sorted(letters))}" if letters else "is not one"
    raise UnusableInput(
        "solution-not-offered", f"the answer {answer!r:.100} {problem} of {list(options.values())!r:.200}"
    )


def _same(answer: str, options: Mapping[str, str], read: Callable[[str], str]) -> set[str]:
    """The letters of the options that equal the answer after `read`."""
    wanted = read(answer)
    return {letter for letter, text in options.items() if read(text) == wanted}


def letter_by_name(answer: str, options: Mapping[str, str]) -> str:
    """The letter of the option that an answer means, where answers are letters: `D`, `(D)` or `D) Spleen`.

    Raises:
        UnusableInput: as `letter_by_text`.
    """
    letter = bare_letter(answer) or _letter_with_text(answer, options)
    if letter is None or letter not in options:
        raise UnusableInput("solution-not-offered", f"the answer {answer!r:.100} is none of {', '.join(options)}")
    return letter


def _letter_with_text(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of `C) Spleen`; None if the answer does not begin with the letter of an option."""
    mark = _MARK.match(normalized(answer))
    letter = next(filter(None, mark.groups()), "") if mark else ""
    if mark is None or letter not in options:
        return None
    text = as_read(normalized(answer)[mark.end() :]).casefold()
    if text == as_read(options[letter]).casefold():
        return letter
    raise UnusableInput(
        "answer-contradicts",
        f"the answer {answer!r:.100} names {letter}, but option {letter} is {options[letter]!r:.100}",
    )


# ------------------------------------------------------------------------------------------- problem and solution


def published_form(problem: str, solution: str) -> tuple[str, str]:
    """A problem and its solution as published: options as `A)x, B)y` or on lines `A) x`, `<answer> C </answer>`.

    Texts in that form are kept byte for byte. `A. x`, `(A) x` and `A: x` are rewritten, and so are the solutions that
    `letter_by_name` reads.

    Raises:
        UserError: the problem offers no options, or in more than one reading.
        UnusableInput: the solution is none of them.
    """
    try:
        options = options_in(problem)
    except UserError:
        problem = _rewritten(problem)
        options = options_in(problem)
    try:
        solution_letter(solution)
    except UserError as error:
        try:
            answer = re.sub(r"^\s*<answer>|</answer>\s*$", "", solution)
            solution = f"<answer> {letter_by_name(answer, options)} </answer>"
        except UnusableInput as unusable:
            raise UnusableInput("bad-solution", f"{error}, and {unusable}") from None
    return problem, solution


def _rewritten(problem: str) -> str:
    """A problem with other marks before its options, in the published form; unchanged if it has none."""
    lines = problem.rstrip().split("\n")
    for count in range(min(len(LETTERS), len(lines) - 1), 1, -1):
        letters = LETTERS[:count]
        options = without_marks(dict(zip(letters, lines[-count:], strict=True)))
        if list(options.values()) != lines[-count:] and "".join(lines[:-count]).strip():
            return render_lines("\n".join(lines[:-count]), list(options.values()))
    styles = [[mark for mark in _INLINE.finditer(problem) if mark[style]] for style in (1, 2, 3)]
    listed = [marks for marks in styles if "AB" in "".join(mark[0].strip(" ().:") for mark in marks)]
    if not listed:
        return problem
    marks = listed[0]
    letters = "".join(mark[0].strip(" ().:") for mark in marks)
    question, options = problem[: marks[0].start()].rstrip(), _between(problem, marks)
    if len(listed) > 1 or letters != LETTERS[: len(letters)] or not question.endswith(_ENDS) or _is_sentence(options):
        raise UnusableInput("ambiguous-options", f"where the options begin and end cannot be told: {problem!r:.200}")
    try:
        return render_problem(question, options)
    except UserError:  # commas in the texts
        return render_lines(question, options)


def _between(problem: str, marks: Sequence[re.Match[str]]) -> list[str]:
    """The texts that follow the marks."""
    ends = [*(mark.start() for mark in marks[1:]), len(problem)]
    texts = [problem[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return [text.rstrip(",; ") for text in texts[:-1]] + texts[-1:]


def _is_sentence(texts: Sequence[str]) -> bool:
    """Whether the letters are part of a sentence, not marks of options: "panels: (A) and (B)."."""
    return any(not text or text.split()[0].casefold() in ("and", "or") or text[0] in ".,;?!" for text in texts)
