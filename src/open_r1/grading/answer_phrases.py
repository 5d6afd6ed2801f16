"""What a piece of text claims: one offered letter, or nothing. The reading half of `grader`.

`read_statement` reads text that is nothing but an answer; `last_claim` finds the last sentence that says what the
answer is; `last_line` reads a letter on a line of its own. The rules are listed in `grader`. All patterns have
bounded repeats only and claims are looked for from the end, so time is linear in the length of the text.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence

# ------------------------------------------------------------------------------------------------- characters

# Characters are mapped one by one. unicodedata.normalize over a whole completion would take quadratic time
# on a long run of combining marks.
_CHARACTERS: dict[int, str] = {
    point: unicodedata.normalize("NFKC", chr(point))
    for low, high in (
        (0xFF01, 0xFF5E),  # full width
        (0x249C, 0x24E9),  # (a), circled
        (0x1D400, 0x1D7FF),  # mathematical bold, italic, ...
    )
    for point in range(low, high + 1)
}
_CHARACTERS |= dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f"), "")
_CHARACTERS |= dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2009\u202f\u3000"), " ")
_CHARACTERS |= dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_CHARACTERS |= dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'") | dict.fromkeys(map(ord, "\u201c\u201d"), '"')


def normalized(text: str) -> str:
    """The text with full-width, circled and mathematical letters as plain ones, and without invisible signs."""
    return text if text.isascii() else text.translate(_CHARACTERS)


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


def fold_text(text: str) -> str:
    """The form in which option texts are compared: case, spacing, markup and punctuation around do not count."""
    text = " ".join(_plain(normalized(text)).casefold().split())
    text = text.lstrip(" \"':").rstrip(_ENDS)
    if text[:1] == "(" and text[-1:] == ")" and text.count("(") == 1:
        text = text[1:-1].strip(_ENDS)
    return text


def _words(text: str) -> str:
    return " " + " ".join(re.findall(r"\w+", text)) + " "


def _longest(options: Mapping[str, str]) -> int:
    return max((len(text) for text in options.values()), default=0)


def read_statement(content: str, options: Mapping[str, str], cut: bool = False) -> str | None:
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
    folded = fold_text(content)
    letters = [letter for letter, text in options.items() if folded and fold_text(text) == folded]
    return letters[0] if len(letters) == 1 else None


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
    letter, after = text[:1].upper(), text[1:]
    if letter not in options or not text[:1].isascii() or (after[:1].isascii() and after[:1].isalnum()):
        return None
    body = after.strip(_EDGES)
    if not body or _fits(letter, after, options, cut):
        return letter
    repeated = all(piece.upper() == letter for piece in re.split(r"[\s,;/()]+", body))
    return letter if repeated and _option_named(body, options) is None else None


def _beside(after: str) -> tuple[str, str]:
    """The text that stands beside a letter, read twice: without the letter's mark, and without any sign before it.

    The first keeps the sign of "B) -5 mm", the second drops the dash of "C - Pneumonia".
    """
    return after.lstrip(" \t\n)].:,;"), after.lstrip(_EDGES)


def _fits(letter: str, after: str, options: Mapping[str, str], cut: bool) -> bool:
    """Whether the text after a letter is that option's text: in full, or after a mark (`C)`, `C:`) in part."""
    option_text = fold_text(options[letter])
    other_texts = {fold_text(text) for other_letter, text in options.items() if other_letter != letter}
    bodies = [fold_text(body) for body in _beside(after)]
    for body in bodies:
        if body == option_text:
            return True
        if body in other_texts:
            return False
    if after.lstrip()[:1] not in tuple(")].:,;-"):
        return False
    return any((cut and option_text.startswith(body)) or _words(body) in _words(option_text) for body in bodies)


def _trailing_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of "Pneumonia (C)", if the text before it is that option's."""
    text = text.rstrip(_ENDS)
    if len(text) < 5 or text[-1] not in ")]" or text[-3] not in "([":
        return None
    letter = text[-2].upper()
    return letter if letter in options and _option_named(text[:-3], options) == letter else None


_LINES = 64  # an answer below more lines than that is still found; only they are compared with it


def last_line(text: str, options: Mapping[str, str]) -> str | None:
    """The letter on the last line, unless a line above it reads as another answer (a list of the options)."""
    lines = [line for line in text.rstrip().rsplit("\n", _LINES)[-_LINES:] if line.strip()]
    if len(lines) < 2 or len(lines[-1]) > 2 * _longest(options) + 120:
        return None
    letter = _read_letter(lines[-1].strip(), options)
    if letter is None or any(read_statement(line, options) not in (None, letter) for line in lines[:-1]):
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
    r"|(?P<cjk>答案|正确的?选项|应?选择|選擇|故选|应选|應選|答え|正解|解答|정답|답은)"
)
_FILLER = re.compile(
    r"[\s\"'(\[]{1,40}"
    r"|(?P<link>[:=\-→]{1,4}>?"
    r"|(?:is|are|be|as\s{1,3}follows|es|est|ist|lautet|é|è|jest|adalah|là|är|är\s{1,3}|este|هي|هو|है|คือ)(?!\w)"
    r"|应该是|應該是|应该|应为|为|為|是|选(?!项)|選(?!項)|は|が|은|는)"
    r"|(?:would|should|must|will|to|for|the|this|that|question|problem|above|therefore|thus|hence|clearly|definitely"
    r"|most|likely|probably|correct|right|best|final|option|choice|letter|la|el|le|opción|opcion|correcta|correta|letra"
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
    r"(?:\s{0,3}(?:[,;/&+)\]]|\b(?:and|or|und|oder|et|ou|y|o|e)\b|和|或|及|与|と|또는)){1,4}\s{0,3}", re.IGNORECASE
)
_NEXT_LETTER = re.compile(r"\s{0,2}[.\n]\s{0,2}([A-Z])(?:[.)]|\s{0,3}$|\s{0,3}\n)")  # "A. B. C."
_BOX_BEFORE = re.compile(r"boxed\{[^{}]{1,40}\}[\s$]{0,3}(?:or|and|[,;/&])?[\s$]{0,3}$", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"\W{0,4}(?:(?:is|was|seems)\s{1,2}(?:not|wrong|incorrect|false|unlikely|impossible|excluded|ruled)"
    r"|isn't|wasn't|wrong\b|incorrect\b|false\b)",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\s{1,4}(?:because|since|as|due|based|considering|\(|porque|parce|car|weil|потому)", re.IGNORECASE
)
_PARTICLE = re.compile(r"(?:です|である|だ|입니다|이다|번입니다|번|选项|項|项)?\s{0,3}(?=[.。!,\n]|$)")
_RETRACTION = re.compile(
    r"\b(?:wait|actually|correction|sorry|hold on|scratch that|on second thought|i made a mistake"
    r"|let me reconsider|no,|(?:this|that|it|which) (?:is|was) (?:wrong|false|incorrect))"
    r"|等等|不对|更正",
    re.IGNORECASE,
)


def last_claim(text: str, options: Mapping[str, str]) -> str | None:
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
    several = _BOX_BEFORE.search(text, max(0, at - 80), at)
    return f"{text[:at]} answer: {'several' if several else text[start:end]}.\n{text[end:]}"


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
    for place in places:
        window = re.sub(r"^an? ", "", text[place : place + _REACH + 2 * _longest(options)])
        letters, after = _options_beginning(window, options)
        if len(letters) != 1 or _list_goes_on(after, letters[0], options):
            continue
        if _sentence_ends(after) or re.match(rf" ?[(\[]{letters[0]}[)\]]", after, re.IGNORECASE):
            return letters[0]
    return None


def _options_beginning(text: str, options: Mapping[str, str]) -> tuple[list[str], str]:
    """The letters of the longest option text that `text` begins with, and what follows it (in lower case)."""
    window = " ".join(text[: _REACH + 2 * _longest(options)].casefold().split())
    letters_by_text: dict[str, list[str]] = {}
    for letter, option in options.items():
        folded = fold_text(option)
        if folded and window.startswith(folded) and not window[len(folded) :][:1].isalnum():
            letters_by_text.setdefault(folded, []).append(letter)
    longest = max(letters_by_text, key=len, default="")
    return letters_by_text.get(longest, []), window[len(longest) :]


def _sentence_ends(after: str) -> bool:
    return not after.strip() or after[0] in ".,;!)\"'。"


def _list_goes_on(after: str, letter: str, options: Mapping[str, str]) -> bool:
    """Whether another option is named behind the text of one: "C) Pneumonia, D) Normal"."""
    also = _ALSO.match(after)
    next_item = after[also.end() :] if also else after.lstrip()
    next_letter = next_item[:1].upper()
    if next_letter in options and next_letter != letter:
        marked = next_item[1:2] in (("", *")].:") if also else tuple(")].:"))
        if marked or next_letter in _options_beginning(next_item[1:], options)[0]:
            return True
    return also is not None and _options_beginning(next_item, options)[0] not in ([], [letter])


def _letter_at(text: str, at: int, options: Mapping[str, str]) -> str | None:
    """The offered letter that a claim names at `at`; None if it is an article, a list, or beside another's text."""
    written, following = text[at : at + 1], text[at + 1 : at + 1 + _REACH + 2 * _longest(options)]
    letter = written.upper()
    if not written.isascii() or letter not in options or _another_letter(following, letter, options):
        return None
    glued = re.match(r"[A-Za-z0-9]|['\-.][A-Za-z0-9]|\. [a-z]", following)  # a word, "D-dimer", "C. difficile"
    if glued and (glued.group().isalnum() or letter not in _options_beginning(following[1:], options)[0]):
        return None
    matching, _ = _options_beginning(text[at:], options)
    if matching and letter not in matching and len(fold_text(options[matching[0]])) > 1:
        return None  # the letter is the beginning of another option's text
    for body in _beside(following):
        letters, remainder = _options_beginning(body, options)
        if letter in letters:
            return None if _list_goes_on(remainder, letter, options) else letter
        if letters and (not following.startswith(". ") or _sentence_ends(remainder)):
            return None  # contradicted by the text beside it
    if _TAKEN_BACK.match(following):
        return None
    ends = _PARTICLE.match(following) or re.match(r"\s{0,3}[.):,;!\]\"'。、】-]|\s{0,3}\n", following)
    return letter if ends or (written.isupper() and _REASON.match(following)) else None


def _another_letter(after: str, letter: str, options: Mapping[str, str]) -> bool:
    """Whether a second letter follows the first: "C or D", "A, C", "A. B. C."."""
    if after_dot := _NEXT_LETTER.match(after):
        return after_dot.group(1) in options and after_dot.group(1) != letter
    also = _ALSO.match(after)
    next_item = after[also.end() : also.end() + 2] if also else ""
    if next_item[:1].upper() not in options or next_item[:1].upper() == letter or next_item[1:].isalnum():
        return False
    return next_item[0].isupper() or next_item[1:] in ("", *")].:,;")  # a small "a " is an article
