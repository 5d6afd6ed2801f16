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
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from open_r1.errors import UserError
from open_r1.runs import Mode

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
        raise UserError(f"a problem needs 2 to 26 options that are not empty; these are {options!r}")
    listed = ", ".join(f"{letter}){text}" for letter, text in zip(LETTERS, texts, strict=False))
    problem = f"{question.strip()} {listed}"
    if list(options_in(problem).values()) != texts:
        raise UserError(f"the options cannot be read back from {problem!r}, so answers could not be judged")
    return problem


def options_in(problem: str) -> dict[str, str]:
    """The options that a problem offers, letter -> text, in order from A.

    Texts may hold commas, parentheses and things like `B)`: of all ways to read the markers the one with the
    most consecutive letters counts, then one without empty texts, then one whose markers close no parenthesis
    of an option's text, then the last.

    Raises:
        UserError: the problem does not offer at least A and B.
    """
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
        raise UserError(f"the solution {solution!r} is not of the form '<answer> C </answer>'")
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
    outside = _without_thoughts(_SPECIAL.sub("", _characters(text)))
    block = _last_block(outside)
    if block is not None:
        content, cut = block
        return _read(content, options, cut) or _claim(content, options) or None
    plain = _without_partial_tag(_TAG.sub(" ", outside))
    whole = _read(plain, options)
    if whole is not None:
        return whole
    claimed, line = _claim(plain, options), _last_line(plain, options)
    if claimed is None:
        return line
    return claimed if claimed and line in (None, claimed) else None


# Characters are mapped one by one. unicodedata.normalize over a whole completion would take quadratic time
# on a long run of combining marks.
_CHARACTERS: dict[int, str] = {
    point: unicodedata.normalize("NFKC", chr(point))
    for first, last in (
        (0xFF01, 0xFF5E),  # full width
        (0x249C, 0x24E9),  # (a), circled
        (0x1D400, 0x1D7FF),  # mathematical bold, italic, ...
    )
    for point in range(first, last + 1)
}
_CHARACTERS |= dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f"), "")
_CHARACTERS |= dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2009\u202f\u3000"), " ")
_CHARACTERS |= dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_CHARACTERS |= dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'") | dict.fromkeys(map(ord, "\u201c\u201d"), '"')


def _characters(text: str) -> str:
    return text if text.isascii() else text.translate(_CHARACTERS)


_SPECIAL = re.compile(r"<\|[A-Za-z_]{1,24}\|>")  # <|im_end|> and its like
_TAG = re.compile(r"<(?=[\s/TtAa])\s{0,3}(/?)\s{0,3}(think(?:ing)?|answer)\s{0,3}>", re.IGNORECASE)


def _tags(text: str, name: str) -> list[tuple[bool, int, int]]:
    """(closes, start, end) of each tag of that name, spelling variants included."""
    found = [match for match in _TAG.finditer(text) if match.group(2).lower().startswith(name)]
    return [(match.group(1) == "/", match.start(), match.end()) for match in found]


def _without_thoughts(text: str) -> str:
    """What stands outside thoughts. A nested opening needs a closing of its own, if there is one."""
    kept: list[str] = []
    depth, since, closed_before, last_close = 0, 0, False, None
    reopened: int | None = None  # where the first opening after the last closing of an unclosed thought stands
    for closes, start, end in _tags(text, "think"):
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


def _last_block(text: str) -> tuple[str, bool] | None:
    """Content of the last answer block, and whether it lacks its closing tag; None if there is no block."""
    blocks: list[tuple[int, int, bool]] = []  # start, end, cut
    for closes, start, end in _tags(text, "answer"):
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


# ------------------------------------------------------------------------------ one short statement of an answer


_LATEX = re.compile(
    r"\\(?:boxed|fbox|mbox|text(?:bf|it|rm|sf|tt)?|math(?:bf|rm|it|sf|tt)?|bm|bf|rm|emph|underline|left|right)"
    r"(?![A-Za-z])"
)
_HTML = re.compile(r"</?(?:b|strong|i|em|u|p|br|span|center)\s{0,2}/?>", re.IGNORECASE)
_MARKUP = re.compile(r"[*`$#{}\\_]+")
_EDGES = " \t\r\n\f\v.,;:!?\"'()[]<>|=/>«»。、【】「」『』《》…·•→-"
_ENDS = " \t\r\n\f\v.,;:!?\"'。、…"
_LEAD = re.compile(
    r"(?:(?:the|my)\s{1,3})?(?:(?:final|correct|best|right)\s{1,3})?(?:answer|option|choice|letter)"
    r"(?:\s{0,3}:\s{0,3}|\s{1,3})(?:(?:option|choice|letter)\s{1,3})?|(?:选项|答案|正解|정답)\s{0,3}:?\s{0,3}",
    re.IGNORECASE,
)


def _plain(text: str) -> str:
    """The text without bold marks, code marks, LaTeX commands and HTML emphasis."""
    return _MARKUP.sub("", _HTML.sub("", _LATEX.sub("", text)))


def _fold(text: str) -> str:
    """The form in which option texts are compared: case, spacing, markup and punctuation around do not count."""
    text = " ".join(_plain(_characters(text)).casefold().split())
    text = text.lstrip(" \"':").rstrip(_ENDS)
    if text[:1] == "(" and text[-1:] == ")" and text.count("(") == 1:
        text = text[1:-1].strip(_ENDS)
    return text


def _words(text: str) -> str:
    return " " + " ".join(re.findall(r"\w+", text)) + " "


def _longest(options: Mapping[str, str]) -> int:
    return max((len(text) for text in options.values()), default=0)


def _read(content: str, options: Mapping[str, str], cut: bool = False) -> str | None:
    """The letter, if `content` is nothing but an answer: a letter, a letter with its text, or an option's text."""
    content = content.strip()
    if len(content) > 2 * _longest(options) + 120:
        return None
    by_text = _option_named(content, options)
    by_letter = _read_letter(content, options, cut)
    if len(_plain(content).strip(_EDGES)) == 1:
        return by_letter or by_text  # a lone letter is a letter, even where an option's text is a letter too
    if by_letter and by_text and by_letter != by_text:
        return None
    return by_letter or by_text


def _option_named(content: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option whose full text is `content`."""
    folded = _fold(content)
    same = [letter for letter, text in options.items() if folded and _fold(text) == folded]
    return same[0] if len(same) == 1 else None


def _read_letter(content: str, options: Mapping[str, str], cut: bool = False) -> str | None:
    """The letter, if `content` is an offered letter alone or beside its own option's text."""
    text = _plain(content).strip()
    lead = _LEAD.match(text)
    if lead and lead.end() < len(text):
        text = text[lead.end() :]
    trailing = _trailing_letter(text, options)
    if trailing is not None:
        return trailing
    text = text.strip(_EDGES) + (" " if text[-1:].isspace() else "")
    letter, rest = text[:1].upper(), text[1:]
    if letter not in options or not text[:1].isascii() or (rest[:1].isascii() and rest[:1].isalnum()):
        return None
    body = rest.strip(_EDGES)
    if not body or all(piece.upper() == letter for piece in re.split(r"[\s,;/()]+", body)):
        return letter
    return letter if _fits(letter, rest, options, cut) else None


def _fits(letter: str, rest: str, options: Mapping[str, str], cut: bool) -> bool:
    """Whether the text after a letter is that option's text: in full, or after a mark (`C)`, `C:`) in part."""
    own = _fold(options[letter])
    bodies = {_fold(rest.lstrip(" \t\n)].:,;")), _fold(rest.strip(_EDGES))}
    if own in bodies:
        return True
    marked = rest.lstrip()[:1] in tuple(")].:,;-")
    if not marked or any(_fold(text) in bodies for other, text in options.items() if other != letter):
        return False
    return any((cut and own.startswith(body)) or _words(body) in _words(own) for body in bodies)


def _trailing_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of "Pneumonia (C)", if the text before it is that option's."""
    text = text.rstrip(_ENDS)
    if len(text) < 5 or text[-1] not in ")]" or text[-3] not in "([":
        return None
    letter = text[-2].upper()
    return letter if letter in options and _option_named(text[:-3], options) == letter else None


_LINES = 64  # an answer below more lines than that is still found; only they are compared with it


def _last_line(text: str, options: Mapping[str, str]) -> str | None:
    """The letter on the last line, unless a line above it reads as another answer (a list of the options)."""
    lines = [line for line in text.rstrip().rsplit("\n", _LINES)[-_LINES:] if line.strip()]
    if len(lines) < 2 or len(lines[-1]) > 2 * _longest(options) + 120:
        return None
    letter = _read_letter(lines[-1].strip(), options)
    if letter is None or any(_read(line, options) not in (None, letter) for line in lines[:-1]):
        return None
    return letter


# ----------------------------------------------------------------------------------------- claims in a sentence


_CLAIMS = 64  # a claim before that many later mentions of an answer is not the final one
_REACH = 240  # characters after "answer" in which its letter must begin and end

# Searched in lower case (patterns that ignore case are ten times slower over a long text).
_ANSWER = re.compile(
    r"\b(?:answers?|ans(?=\s{0,2}[.:])|(?:correct|right|best|final|my)\s{1,3}(?:option|choice|letter|selection)"
    r"|respuesta|r[ée]ponse|antwort|resposta|risposta|antwoord|odpowied[zź]|cevap|yan\u0131t|đáp án|jawaban|svar(?:et)?"
    r"|\u043e\u0442\u0432\u0435\u0442|الإجابة|الجواب|उत्तर|คำตอบ)\b"  # the escapes: Russian otvet, Turkish yanit
    r"|(?P<cjk>答案|正确的?选项|故选|应选|應選|選擇|选择|答え|正解|解答|정답|답은)"
)
_FILLER = re.compile(
    r"[\s\"'(\[]{1,40}"
    r"|(?P<link>[:=\-→]{1,4}>?"
    r"|(?:is|are|be|as\s{1,3}follows|es|est|ist|lautet|é|è|jest|adalah|là|är|är\s{1,3}|este|هي|هو|है|คือ)(?!\w)"
    r"|应该是|應該是|应该|应为|为|為|是|选|選|は|が|은|는)"
    r"|(?:would|should|must|will|to|for|the|this|that|question|problem|above|therefore|thus|hence|clearly|definitely"
    r"|most|likely|probably|correct|right|best|final|option|choice|letter|la|el|le|opción|opcion|correcta|letra"
    r"|lettre|correcte|opción|opção|lettera|corretta|buchstabe|richtige|правильный|вариант|буква|الصحيحة|सही)(?!\w)"
    r"|正确答案|正确|正解|选项|的",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?:not|\w{1,6}n't|no|none|neither|nor|never|either|both|unclear|unknown|uncertain|unsure|cannot|unable|impossible"
    r"|wrong|incorrect|nicht|kein\w?|pas|n'est|non|não|nao|nie|не|değil|不|非|没|無|无)",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"\b(?:not|\w{1,6}n't|never|unlikely|doubt|if|whether|unless|cannot|nor|(?:wrong|incorrect|false)\s{0,3}$)"
    r"|不认为|不觉得|如果|错误$|不正确的?$",
    re.IGNORECASE,
)
_NO_CLAIM = re.compile(r"(?:based|supported|derived|consistent|determined|obtained|explained|justified|given)\b", re.I)
_ALSO = re.compile(
    r"\s{0,3}(?:[,;/&+)\]]|\b(?:and|or|und|oder|et|ou|y|o|e)\b|和|或|及|与|と|또는){1,4}\s{0,3}",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\s{1,4}(?:because|since|as|due|based|considering|\(|porque|parce|car|weil|потому)", re.IGNORECASE
)
_PARTICLE = re.compile(r"(?:です|である|だ|입니다|이다|번입니다|번|选项|項|项)?\s{0,3}(?=[.。!,\n]|$)")
_RETRACTION = re.compile(
    r"\b(?:wait|actually|correction|sorry|hold on|scratch that|on second thought|i made a mistake"
    r"|let me reconsider|no,)"
    r"|等等|不对|更正",
    re.IGNORECASE,
)


def _claim(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the last claim of an answer; "" if that claim cannot be read, None if nothing is claimed."""
    text = _plain(_with_box_as_claim(text)).replace("\u0130", "I")  # the one letter whose lower case is two
    for match in reversed(deque(_ANSWER.finditer(text.lower()), maxlen=_CLAIMS)):
        claimed, end = _claim_at(text, match, options)
        if claimed is None:
            continue
        return "" if _RETRACTION.search(text, end) else claimed
    return None


def _with_box_as_claim(text: str) -> str:
    """Write the last `\\boxed{...}` as a claim, so that one reader serves both."""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        return text
    start = text.index("{", at) + 1
    depth, end = 1, min(len(text), start + _REACH)
    for position in range(start, end):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            end = position
            break
    return f"{text[:at]} answer: {text[start:end]}.\n{text[end:]}"


def _claim_at(text: str, match: re.Match[str], options: Mapping[str, str]) -> tuple[str | None, int]:
    """What the mention of an answer at `match` claims (letter, "" or None as above), and where the claim ends."""
    places, linked = [match.end()], match.group("cjk") is not None
    while len(places) < 24 and (filler := _FILLER.match(text, places[-1])):
        linked = linked or filler.group("link") is not None or "\n" in filler.group()
        places.append(filler.end())
    at = places[-1]
    if not linked:
        return ("" if _DENIAL.match(text, at) else None), at
    if _denied_before(text, match.start()):
        return "", at
    named = _option_at(text, places, options)
    letter = _letter_at(text, at, options)
    if letter is not None:
        return ("" if named not in (None, letter) else letter), at + 1
    if named is not None:
        return named, at
    return (None if _NO_CLAIM.match(text, at) else ""), at


def _denied_before(text: str, at: int) -> bool:
    """Whether the clause before a claim takes it back: "I do not think that the answer is C"."""
    clause = re.split(r"[.!?;:,\n。]", text[max(0, at - 100) : at])[-1]
    return _DENIED_BEFORE.search(clause) is not None


def _option_at(text: str, places: Sequence[int], options: Mapping[str, str]) -> str | None:
    """The letter of the option whose full text stands at one of the places and ends where a sentence may end."""
    reach = 2 * _longest(options) + 60
    for place in places:
        window = " ".join(text[place : place + reach].casefold().split())
        window = re.sub(r"^an? ", "", window) if not window.startswith(("a)", "a.")) else window
        found = [
            letter
            for letter, option in options.items()
            if (folded := _fold(option)) and window.startswith(folded) and _sentence_ends(window[len(folded) :])
        ]
        if len(found) == 1:
            return found[0]
    return None


def _sentence_ends(rest: str) -> bool:
    return not rest.strip() or rest[0] in ".,;!)\"'。"


def _letter_at(text: str, at: int, options: Mapping[str, str]) -> str | None:
    """The offered letter that a claim names at `at`; None if it is an article, a list, or beside another's text."""
    letter, rest = text[at : at + 1], text[at + 1 : at + 1 + _REACH + 2 * _longest(options)]
    if not letter.isascii() or letter.upper() not in options:
        return None
    if re.match(r"[A-Za-z0-9]|['\-.][A-Za-z0-9]", rest) and not _begins_with_option(rest[1:], options, letter.upper()):
        return None
    also = _ALSO.match(rest)
    other = rest[also.end() : also.end() + 2] if also else ""
    if other[:1].upper() in options and other[:1].upper() != letter.upper() and not other[1:].isalnum():
        return None
    body = rest.lstrip(_EDGES)
    if _begins_with_option(body, options, letter.upper()):
        return letter.upper()
    if any(_begins_with_option(body, options, other) for other in options):
        return None  # contradicted by the text beside it
    ends = _PARTICLE.match(rest) or re.match(r"\s{0,3}[.):,;!\]\"'。、】-]|\s{0,3}\n", rest)
    if ends or (letter.isupper() and _REASON.match(rest)):
        return letter.upper()
    return None


def _begins_with_option(text: str, options: Mapping[str, str], letter: str) -> bool:
    folded = _fold(options[letter])
    window = " ".join(text[: 2 * len(folded) + 60].casefold().split())
    return bool(folded) and window.startswith(folded) and not window[len(folded) :][:1].isalnum()


# ------------------------------------------------------------------------------------------------- the form


_FORMS: dict[Mode, tuple[str, ...]] = {
    Mode.THINK: ("<think>", "</think>", "<answer>", "</answer>"),
    Mode.NOTHINK: ("<answer>", "</answer>"),
    Mode.THINK_AFTER: ("<answer>", "</answer>", "<think>", "</think>"),
}


def follows_format(text: str, mode: Mode) -> bool:
    """Whether a completion has exactly the form of its mode: each tag once, in order, nothing outside.

    As in the published patterns, white space may stand around and between the blocks and a block may be empty:
    the format reward pays for form alone, what the blocks hold is the business of the accuracy reward. Other
    spellings of a tag, or a tag of another mode, are a second tag and cost the reward.
    """
    form = _FORMS[mode]
    matches = list(_TAG.finditer(text))
    if tuple(match.group() for match in matches) != form:
        return False
    outside = [text[: matches[0].start()], text[matches[-1].end() :]]
    between = zip(matches[1::2], matches[2::2], strict=False)
    outside += [text[before.end() : after.start()] for before, after in between]
    return not any(piece.strip() for piece in outside)
