"""Claims: the last sentence of a text that says what the answer is. The rules are listed in `grader`.

All patterns have bounded repeats only and claims are looked for from the end, so time is linear in the length of the
text.
"""

import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache

from open_r1.grading.choice.later_statements import contradicted
from open_r1.grading.choice.option_texts import (
    ALSO,
    REACH,
    after_option,
    fold_text,
    longest_option,
    options_beginning,
    plain_text,
    text_pattern,
)
from open_r1.grading.choice.statements import beside

_CLAIMS = 64  # a claim before that many later mentions of an answer is not the final one

# Searched in lower case (patterns that ignore case are ten times slower over a long text).
_ANSWER = re.compile(
    r"\b(?:answers?|ans(?=\s{0,2}[.:])|(?:correct|right|best|final|my)\s{1,3}(?:option|choice|letter|selection)"
    r"|the\s{1,3}(?:option|choice)(?=\s{0,2}(?:is\b|:))"
    r"|respuesta|r[ée]ponse|antwort|resposta|risposta|antwoord|odpowied[zź]|cevap|yan\u0131t|đáp án|jawaban|svar(?:et)?"
    r"|\u043e\u0442\u0432\u0435\u0442|الإجابة|الجواب|उत्तर|คำตอบ)\b"  # the escapes: Russian otvet, Turkish yanit
    r"|(?P<cjk>答案|正确的?选项|应?选择|選擇|故选|应选|應選|答え|正解|解答|정답|답은)"
)
_FILLER = re.compile(
    r"[\s\"'(\[]{1,40}"
    r"|(?P<link>[:=\-→]{1,4}>?"
    r"|(?:is|are|be|as\s{1,3}follows|es|est|ist|lautet|é|è|jest|adalah|là|är|är\s{1,3}|este|هي|هو|है|คือ)(?!\w)"
    r"|应该是|應該是|应该|应为|为|為|是|选(?!项)|選(?!項)|は|が|은|는)"
    r"|(?:would|should|must|will|to|for|the|this|that|among|these|those|options|choices|here|image|in|of|given"
    r"|question|problem|above|therefore|thus|hence|clearly|definitely"
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
    r"\b(?:not|\w{1,6}n't|never|unlikely|doubt|if|whether|unless|cannot|nor|no\s{1,2}longer|(?:wrong|incorrect|false)\s{0,3}$)"
    r"|不认为|不觉得|如果|错误$|不正确的?$",
    re.IGNORECASE,
)
_ON_CONDITION = re.compile(  # "if the border is regular, the answer is B"
    r"(?:^|[.!?;:,\n])\s{0,3}(?:but\s|and\s|then\s)?(?:if|unless|should|assuming|provided|in\s{1,2}case)\s{1,3}"
    r"(?!(?:we|you|one|i)\s{1,2}(?:look|examine|consider|have|had|must|were|see|zoom|compare|recall|remember)\b)"
    r"[^.!?;:\n]{3,90},\s{0,3}(?:then\s{1,2})?(?:the\s{1,2}(?:\w{1,10}\s{1,2})?)?$",
    re.IGNORECASE,
)
_NO_CLAIM = re.compile(r"(?:based|supported|derived|consistent|determined|obtained|explained|justified|given)\b", re.I)
_NEXT_LETTER = re.compile(r"\s{0,2}[.\n]\s{0,2}([A-Z])(?:[.)]|\s{0,3}$|\s{0,3}\n)")  # "A. B. C."
_BOX_BEFORE = re.compile(r"boxed\{[^{}]{1,40}\}[\s$]{0,3}(?:or|and|[,;/&])?[\s$]{0,3}$", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"\W{0,4}(?:(?:is|was|seems)\s{1,2}(?:not|wrong|incorrect|false|unlikely|impossible|excluded|ruled)"
    r"|isn't|wasn't|wrong\b|incorrect\b|false\b)",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\s{1,4}(?:because|since|as|due|based|considering|rather\s{1,2}than|instead\s{1,2}of|\(|porque|parce|car|weil|потому)",
    re.IGNORECASE,
)
_PARTICLE = re.compile(r"(?:です|である|だ|입니다|이다|번입니다|번|选项|項|项)?\s{0,3}(?=[.。!,\n]|$)")
RETRACTION = re.compile(
    r"\b(?:wait|actually|correction|sorry|hold on|scratch that|on second thought|i made a mistake"
    r"|let me reconsider|no,|(?:this|that|it|which) (?:is|was) (?:wrong|false|incorrect))"
    r"|等等|不对|更正",
    re.IGNORECASE,
)

_POINTER = re.compile(
    r"(?:\b(?:it|this|that|diagnosis|modality|finding|abnormality|organ|grade|stage|plane|virus|cause|pathogen|location)"
    r"(?:'s|\s{1,2}(?:is|should\s{1,2}be|must\s{1,2}be|has\s{1,2}to\s{1,2}be|would\s{1,2}be))"
    r"|\b(?:i|we)(?:'d|'ll|\s{1,2}(?:would|will|should|must|can|therefore|thus|finally|now))?"
    r"\s{1,2}(?:choose|pick|select|go\s{1,2}with|opt\s{1,2}for|say)"
    r"|(?:^|[.!?;\n]\s{0,3}|\b(?:i'm|i\s{1,2}am|we're|let's|i'd)\s{1,2})go(?:ing)?\s{1,2}with"
    r"|(?:^|[.!?;,\n])\s{0,3}(?:this|that|which)\s{1,2}leaves(?:\s{1,2}(?:only|us\s{1,2}with))?"
    r"|\b(?:is|be)\s{0,2}:"
    r"|\b(?:which\s{1,2}is|which\s{1,2}corresponds\s{1,2}to|i\.e\.,?)\s{1,2}(?:option|choice|answer)"
    r"|(?:^|[.!?;\n])\s{0,3}(?:(?:it\s{1,2})?(?:looks|seems)\s{1,2}like|(?:most\s{1,2})?(?:probably|likely)"
    r"|i\s{1,2}(?:think|believe|guess)(?:\s{1,2}(?:that\s{1,2})?it(?:'s|\s{1,2}is))?)"
    r"|(?:^|[.!?;,\n])\s{0,3}(?:therefore|thus|so|hence|accordingly|consequently|in\s{1,2}conclusion|conclusion|finally"
    r"|overall|i\s{1,2}choose|choose)\s{0,2}[,:]?(?:\s{1,2}(?:it\s{1,2}is|i\s{1,2}choose|we\s{1,2}choose))?"
    r"|(?:因此|所以|综上(?:所述)?|(?<![不故应應])选(?![项择]))\s{0,2}[,:]?)"
    r"(?:\s{1,3}(?:most|likely|probably|clearly|definitely|therefore|thus|option|choice|letter|the|answer)){0,6}?"
    r"(?P<end>[\s\"'(\[]{0,4})(?=[a-z](?![a-z0-9]))"
)
_LEAST = re.compile(
    r"\b(?:least|less|unlikely|wrong|incorrect|false|excluded|other|except|first|second|third|next|last|another)\b"
    r"[^.!?;\n]{0,60}$",
    re.IGNORECASE,
)
_IS_RIGHT = re.compile(
    r"\s{1,3}(?:is|would\s{1,2}be|seems|appears\s{1,2}to\s{1,2}be|must\s{1,2}be|should\s{1,2}be)\s{1,2}"
    r"(?:(?:most|clearly|therefore|indeed|thus|likely|the|my|single|final|definitely|probably)\s{1,2}){0,4}"
    r"(?:(?:correct|right|best|most\s{1,2}(?:likely|appropriate|accurate|probable)|final)"
    r"(?:\s{1,2}(?:answer|option|choice|one|diagnosis|match|response|virus|cause|pathogen|organism|modality|step|explanation|finding))?|answer)"
    r"(?=\s{0,3}(?:[.,;!)\n]|$|(?:because|since|as|for|based|given|due|here|to\s{1,2}this|in\s{1,2}this)\b))"
)
_CLAUSE_BEGINS = (
    r"(?:^|[.!?;:,\n]\s{0,3}|\b(?:options?|choices?|answer|letter|that|think|believe|so|therefore|thus|hence"
    r"|conclude)\s{1,3})[(\"'\[]{0,2}"
)
_LETTER_BEFORE = re.compile(r"\b[A-Z][)\].]?\s{0,2},\s{0,2}[(\"'\[]{0,2}[A-Z]\b[^,]*$")


def last_claim(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the last claim of an answer; "" if that claim cannot be read, None if nothing is claimed."""
    text = plain_text(_with_box_as_claim(text)).replace("\u0130", "I")  # the one letter whose lower case is two
    lower = text.lower()
    heads = [(match.start(), _claim_at, match) for match in deque(_ANSWER.finditer(lower), maxlen=_CLAIMS)]
    heads += [(match.start(), _pointed_at, match) for match in deque(_POINTER.finditer(lower), maxlen=_CLAIMS)]
    heads += [(match.start(), _called_right, match) for match in deque(_IS_RIGHT.finditer(lower), maxlen=_CLAIMS)]
    for _, read, match in sorted(heads, key=lambda head: head[0], reverse=True):
        claimed, end = read(text, match, options)
        if claimed is None:
            continue
        if not claimed or RETRACTION.search(text, end) or contradicted(text, end, claimed, options):
            return ""
        if read is not _claim_at and {other(text, at, options)[0] for _, other, at in heads} - {None, "", claimed}:
            return ""  # these say so in passing, and do not take back an answer that was given
        return claimed
    return None


def _with_box_as_claim(text: str) -> str:
    """Write the last `\\boxed{...}` as a claim, so that one reader serves both."""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        return text
    start = text.index("{", at) + 1
    depth, end = 1, min(len(text), start + REACH)
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
        return ("" if named not in (None, letter) else letter), after_option(text, at + 1, options[letter])
    if named is not None:
        return named, _after_text(text, places, options[named])
    return (None if _NO_CLAIM.match(text, at) else ""), at


def _after_text(text: str, places: Sequence[int], option: str) -> int:
    """The end of an option's text that stands at one of the places; the last place where it cannot be told."""
    return max(after_option(text, place, option) for place in places)


def _pointed_at(text: str, match: re.Match[str], options: Mapping[str, str]) -> tuple[str | None, int]:
    """The letter that "it should be" or "therefore" leads to; None, since no claim needs one there."""
    at = match.end()
    letter = _letter_at(text, at, options) if text[at : at + 1].isupper() else None
    if letter is None or _denied_before(text, match.start() + 1) or _LEAST.search(text[max(0, at - 60) : at]):
        return None, at
    end = after_option(text, at + 1, options[letter])
    return (None if text[end : end + 3].lstrip(" )'\"")[:1] == "?" else letter), end


def _called_right(text: str, match: re.Match[str], options: Mapping[str, str]) -> tuple[str | None, int]:
    """The letter of "C is the correct answer" or "Option C is correct"."""
    before = text[max(0, match.start() - REACH - longest_option(options)) : match.start()]
    letters = [letter for letter, option in options.items() if _subject(letter, option).search(before)]
    if len(letters) != 1 or _denied_before(text, match.start()):
        return None, match.end()
    return ("" if _LETTER_BEFORE.search(before) else letters[0]), match.end()


@lru_cache(maxsize=4096)
def _subject(letter: str, option: str) -> re.Pattern[str]:
    """A pattern of a letter, its text, or both, as a sentence's subject at the end of a text."""
    name = rf"{letter}(?:[)\].:]{{0,2}}\s{{0,3}}[-:(]?\s{{0,3}}(?i:{text_pattern(option)}))?"
    named = rf"(?i:(?:(?:an?|the)\s{{1,2}})?{text_pattern(option)})(?:\s{{0,2}}\({letter}\))?"
    return re.compile(rf"(?i:{_CLAUSE_BEGINS})(?:{name}|{named})[\"')\]]{{0,2}}$")


def _denied_before(text: str, at: int) -> bool:
    """Whether the clause before a claim takes it back: "I do not think that the answer is C"."""
    before = text[max(0, at - 100) : at]
    clause = re.split(r"[.!?;:,\n。]", before)[-1]
    return _DENIED_BEFORE.search(clause) is not None or _ON_CONDITION.search(before) is not None


def _option_at(text: str, places: Sequence[int], options: Mapping[str, str]) -> str | None:
    """The letter of the option whose full text stands at one of the places and ends where a sentence may end."""
    for place in places:
        window = re.sub(r"^(?:an?|the) ", "", text[place : place + REACH + 2 * longest_option(options)])
        letters, after = options_beginning(window, options)
        if len(letters) != 1 or _list_goes_on(after, letters[0], options):
            continue
        if _sentence_ends(after) or re.match(rf" ?[(\[]{letters[0]}[)\]]", after, re.IGNORECASE):
            return letters[0]
    return None


def _sentence_ends(after: str) -> bool:
    return not after.strip() or after[0] in ".,;!)\"'。"


def _list_goes_on(after: str, letter: str, options: Mapping[str, str]) -> bool:
    """Whether another option is named behind the text of one: "C) Pneumonia, D) Normal"."""
    also = ALSO.match(after)
    next_item = after[also.end() :] if also else after.lstrip()
    next_letter = next_item[:1].upper()
    if next_letter in options and next_letter != letter:
        marked = next_item[1:2] in (("", *")].:") if also else tuple(")].:"))
        if marked or next_letter in options_beginning(next_item[1:], options)[0]:
            return True
    return also is not None and options_beginning(next_item, options)[0] not in ([], [letter])


def _letter_at(text: str, at: int, options: Mapping[str, str]) -> str | None:
    """The offered letter that a claim names at `at`; None if it is an article, a list, or beside another's text."""
    written, following = text[at : at + 1], text[at + 1 : at + 1 + REACH + 2 * longest_option(options)]
    letter = written.upper()
    if not written.isascii() or letter not in options or _another_letter(following, letter, options):
        return None
    glued = re.match(r"[A-Za-z0-9]|['\-.][A-Za-z0-9]|\. [a-z]", following)  # a word, "D-dimer", "C. difficile"
    if glued and (glued.group().isalnum() or letter not in options_beginning(following[1:], options)[0]):
        return None
    matching, _ = options_beginning(text[at:], options)
    if matching and letter not in matching and len(fold_text(options[matching[0]])) > 1:
        return None  # the letter is the beginning of another option's text
    for body in beside(following):
        letters, remainder = options_beginning(body, options)
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
    also = ALSO.match(after)
    next_item = after[also.end() : also.end() + 2] if also else ""
    if next_item[:1].upper() not in options or next_item[:1].upper() == letter or next_item[1:].isalnum():
        return False
    return next_item[0].isupper() or next_item[1:] in ("", *")].:,;")  # a small "a " is an article
