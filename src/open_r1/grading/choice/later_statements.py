"""Whether the text after a claim speaks for another option: a change of mind, in whatever words.

No list of words holds every way to change one's mind, so the question is put the other way round. Every other offered
letter behind the claim counts as a statement for that option, unless its place in the sentence shows that it is none:
it is denied ("not B", "rather than B"), it is the subject of a rejection ("B is wrong", "B would show ..."), or it is
no option's letter at all ("vitamin B", "B cells"). What these patterns do not know makes an answer unparsed.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from open_r1.grading.choice.option_texts import ALSO, after_option, fold_text, text_pattern
from open_r1.grading.choice.walks import without_walk

# A letter that stands alone: no part of a word, of "e.g." or of "D-dimer"; "B's right" is one, "I'm" is none.
_MENTION = re.compile(
    r"(?<![A-Za-z0-9\u00c0-\u024f_])(?<!\b[A-Za-z]\.)(?<![A-Za-z]')"
    r"([A-Za-z])(?![A-Za-z0-9\u00c0-\u024f_]|-[A-Za-z]|\.[A-Za-z]\b|(?<=[Ii])'[A-Za-z])"
)
_MARKED = re.compile(r"\s{0,2}(?:[)\].,;:!?。、]|\n|$)")  # a small letter counts only before one of these

_COMPOUND = re.compile(
    r"(?:\b(?:vitamins?|hepatitis|types?|grades?|stages?|groups?|class|categor(?:y|ies)|factors?|influenza|levels?|zones?"
    r"|parts?|panels?|figures?|fig\.|images?|phases?|complement|proteins?|views?|segments?|immunoglobulin|trisomy"
    r"|ha?emophilia|strep(?:tococcus)?)|\d)\s{0,2}$",
    re.IGNORECASE,
)
_COMPOUND_GOES_ON = re.compile(
    r"\s{1,2}(?:cells?|lymphocytes?|fib(?:er|re)s?|waves?|lines?|virus(?:es)?|difficile|coli|deficiency)\b"
)
_VERB = re.compile(
    r"\s{1,2}(?:\w{1,20}(?:s|ed|ly)|will|would|should|could|can|may|might|must|did|do|for|as|and|or|but|also|too|again"
    r"|now|then|after|on|in|at|it|instead|because|since|not|if|to|fit|won|best|better|more|most|right|correct|wrong"
    r"|here|still|rather|seem|look|make|have|be|been|over|with|by|of|than|so|yet|only|just|once|after)\b",
)
_NOUN_AFTER = re.compile(r"\s{1,2}[a-z]{2}")

_FILLERS = (
    r"(?:options?|choices?|answers?|letters?|the|an?|is|be|been|are|it|that|this|of|for|with|to|as|either|just|think"
    r"|believe|match|fit|support|suggest|consistent|correct|really|choose|pick|select|say|likely|compatible|typical)"
)
# The next four are searched in lower case (patterns that ignore case are slower, and a text may be a list of letters).
_DENIED = re.compile(
    r"(?:(?:\b(?:not|no\s{1,2}longer|(?:i|we)\s{1,2}doubt|never|nor|neither|(?<!other )than|instead\s{1,2}of|unlike"
    r"|except(?:\s{1,2}for)?|different\s{1,2}from|compared\s{1,2}(?:to|with)|as\s{1,2}opposed\s{1,2}to|versus|vs\.?"
    r"|(?:exclud|eliminat|reject|discard|dismiss)\w{1,4}|rul(?:e|es|ed|ing)\s{1,2}out|inconsistent\s{1,2}with"
    rf"|nicht|pas|no\s{{1,2}}es|\u043d\u0435)|n't)(?:\s{{1,3}}{_FILLERS}){{0,6}}\s{{0,3}}|(?:不是|不选|而非|并非|排除)(?:选项)?)"
    r"[(\"'\[]{0,3}$"
)
_INFERIOR = re.compile(
    r"(?:\b(?:less|worse|fewer|weaker|lower)\b[^.;:!?\n]{0,60}(?<!\brather\s)"
    r"|\b(?:not?|nothing|none|nobody|never|hardly|\w{1,8}n't)\b[^.;:!?\n]{0,60})\bthan\b[^.;:!?\n]{0,40}$"
)
_TWICE = re.compile(  # "I cannot rule out B"
    r"\b(?:not|no|nor|nothing|never|cannot|\w{1,8}n't)\b[^.;:!?,\n]{0,40}"
    r"\b(?:not|exclud\w{1,4}|eliminat\w{1,4}|reject\w{0,4}|discard\w{0,4}|dismiss\w{0,4}|rul\w{1,3}\s{1,2}out)\b"
    r"[^.;:!?,\n]{0,30}$"
)
_NAMED_AGAIN = re.compile(  # the claimed letter where a sentence stands by it
    r"(?:^|[.!?;:,\n(\"'>=-]\s{0,3}|\b(?:is|be|as|with|to|supports?|supporting|so|therefore|thus|only|for|suggests?"
    r"|indicates?|favou?rs?|of|because|that|since|and|why|makes?|leaves?|confirms?|in|matches|while|whereas)\s{1,3})"
    r"(?:(?:options?|choice|answer|letter|the)\s{1,3}){0,2}[(\"'\[]{0,2}$"
)
_AGAINST = re.compile(
    r"[^.;,!?\n]{0,60}\b(?:less|worse|no longer|not|\w{1,8}n't|wrong|incorrect|unlikely|out"
    r"|withdrawn|retracted|dropped|discarded|rejected|excluded)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[^.!?\n。]{0,120}\?")

_NEGATED = (
    r"(?:not|cannot|\w{1,8}n't)\s{1,2}(?:(?:an?|the|any|be|been|really|quite|very|as|this|seem|to|have)\s{1,2}){0,3}"
    r"(?:correct|right|true|answer|option|choice|best|most|seen|visible|present|shown|evident|consistent|compatible"
    r"|supported|typical|likely|possible|applicable|relevant|appropriate|suitable|fit|match\w{0,3}|explain|show|cause"
    r"|apply|describe|correspond|account|support|produce|lead|result|involve|related|associated|indicated"
    r"|characteristic|used|depicted|demonstrated|observed|identified)\b"
    r"(?![^.;\n]{0,60}\b(?:but|until|unless|without|before|earlier|initially|previously|at first)\b)"
    r"|(?<=\bdoes\s)not(?=\s{0,2}(?:[.;]|$))"
)
_OUTRIGHT = (
    r"(?:wrong|incorrect|false|unlikely|excluded|eliminated|ruled\s{1,2}out|inconsistent|incompatible|implausible"
    r"|impossible|improbable|less\s{1,2}(?:likely|probable|typical|common|consistent|plausible|suitable)|lack(?:s|ing)?"
    r"|rejected|irrelevant|unrelated|inappropriate|contraindicated)\b"
    r"(?!\s{1,2}(?:to\s{1,2}(?!explain|cause|show|produce|present)|only|but|about))"
)
_OF_OTHERS = (  # what would be seen if it were B, or what B is like in general
    r"(?:would\s{1,2}(?:show|cause|present|appear|produce|lead|result|require|typically|usually|involve|manifest|display|exhibit"
    r"|demonstrate|reveal|blunt|obscure|blur|shift|displace|delay|spare|widen|enlarge|occur|affect|lack|contain)"
    r"|typically|usually|generally|commonly)\b(?![^.;\n]{0,60}\b(?:exactly|just|this|that|such|these|precisely|here|it)\b)"
)
_NOT_SEEN = (  # "A) Pneumothorax: a pleural line, not seen here"
    r"[^.;\n]{0,100}[,;]\s{1,2}(?:(?:which|but|and)\s{1,2}(?:is|are)\s{1,2})?not\s{1,2}(?:seen|present|visible|observed"
    r"|evident|identified|shown)\b(?![^.;\n]{0,40}\b(?:before|first|earlier|until|initially|by me)\b)"
)
_REJECTED = re.compile(
    r"[)\]]{0,2}\s{0,3}(?:[-:(]\s{0,2}|,\s{0,2}which\s{1,2}|,\s{0,2}(?=(?:is|are)\b))?"
    r"(?:(?:is|are|was|were|seems?|appears?|looks?|would|could|can|may|might|should|do|does|did|has|have|be|been|also"
    r"|clearly|therefore|thus|both|all|very|much|far|too|simply|definitely|however)\s{1,2}){0,5}"
    rf"(?:{_NEGATED}|{_OUTRIGHT}|{_OF_OTHERS})|[)\]]{{0,2}}\s{{0,3}}[-:]{_NOT_SEEN}",
    re.IGNORECASE,
)
_JOINED = re.compile(r"\b(?:and|or|nor|und|oder|et|ou|(?-i:y|o|e))\b|[/&+和或及与]", re.IGNORECASE)
_NEXT = re.compile(r"(?:(?:options?|choices?|nor)\s{1,2})?[(\"'\[]{0,2}([A-Za-z])(?![A-Za-z0-9])")
_CLAUSE_END = re.compile(r"[)\]\"'\s]{0,3}(?:[.,;:!?\n。]|$|(?:because|since|as|which)\b)")


def contradicted(text: str, start: int, letter: str, options: Mapping[str, str]) -> bool:
    """Whether a text speaks for another option, or against the claimed one, after a claim.

    Args:
        text: without markup.
        start: where the claim ends, its option's text included.
        letter: what it claims.
        options: letter -> text.
    """
    text = without_walk(text, start, letter, options)
    if _other_text_stands(letter, tuple(options.items())).search(text, start):
        return True
    at = start
    while mention := _MENTION.search(text, at):
        name, at = mention[1].upper(), mention.end()
        if name not in options or _is_no_option(text, mention):
            continue
        names, ends, joined = _listed(text, mention, options)
        before = _before(text, mention, options[name]).lower()
        if is_denied(before) and not _QUESTION.match(text, ends[-1]):
            together = len(names) == 1 or (joined and _CLAUSE_END.match(text, ends[-1]) is not None)
            denied = names if together else names[:1]
            if letter in denied:
                return True
            at = ends[len(denied) - 1]
        elif _REJECTED.match(text, ends[-1]):
            if letter in names:
                return True
            at = ends[-1]
        elif name != letter or _AGAINST.match(text, ends[0]) or not _NAMED_AGAIN.search(before):
            return True
        else:
            at = ends[0]
    return False


def _before(text: str, mention: re.Match[str], option: str) -> str:
    """The words before a letter; before its option too, where the letter stands in brackets behind it."""
    before = text[max(0, mention.start() - 90 - len(option)) : mention.start()]
    if before[-1:] not in ("(", "["):
        return before[-90:]
    named = _named_before(option).search(before)
    return (before[: named.start()] if named else before)[-90:]


@lru_cache(maxsize=4096)
def _named_before(option: str) -> re.Pattern[str]:
    """An option's text between a denial and a bracket, "not an effusion (B)", or a word after "than fluid (B)"."""
    word = r"(?:(?<=\bthan\s)|(?<=\binstead of\s)|(?<=\bunlike\s))[a-z-]{2,20}"
    return re.compile(rf"(?:\b{text_pattern(option)}|{word})\s{{0,2}}[(\[]$", re.IGNORECASE)


def is_denied(before: str) -> bool:
    """Whether the words before a letter deny it, and are not denied themselves."""
    before = before.lower()
    return bool(_DENIED.search(before)) and not (_INFERIOR.search(before) or _TWICE.search(before))


def is_rejected(text: str, at: int) -> bool:
    """Whether what follows an option at `at` rejects it, as in "is unlikely" or "would show"."""
    return _REJECTED.match(text, at) is not None


def mentions(text: str, options: Mapping[str, str]) -> set[str]:
    """The offered letters that a short text names, denied ones included."""
    return {
        match[1].upper()
        for match in _MENTION.finditer(text)
        if match[1].upper() in options and not _is_no_option(text, match)
    }


def _is_no_option(text: str, mention: re.Match[str]) -> bool:
    """Whether a lone letter is an article, a pronoun, a small letter of prose, or part of a name."""
    written, end = mention[1], mention.end()
    before = text[max(0, mention.start() - 20) : mention.start()]
    if _COMPOUND.search(before) or _COMPOUND_GOES_ON.match(text, end):
        return True
    if not written.isupper():
        return _MARKED.match(text, end) is None
    if written == "A":  # an article only where a sentence begins; before a verb it is a letter there too
        begins = not before.strip() or before.rstrip(" \"'(")[-1:] in (*".!?:;\n", "")
        return begins and _NOUN_AFTER.match(text, end) is not None and _VERB.match(text, end) is None
    return written == "I" and _NOUN_AFTER.match(text, end) is not None


def _listed(text: str, mention: re.Match[str], options: Mapping[str, str]) -> tuple[list[str], list[int], bool]:
    """The letters of a list that begins with a mention, the end of each, and whether "and" or "or" joins them."""
    names, ends, joined = [mention[1].upper()], [], False
    ends.append(after_option(text, mention.end(), options[names[0]]))
    while len(names) <= len(options) and (also := ALSO.match(text, ends[-1])):
        following = _next_item(text, also.end(), options)
        if following is None or following[1].upper() not in options or _is_prose(text, following):
            break
        names.append(following[1].upper())
        ends.append(after_option(text, following.end(), options[names[-1]]))
        joined = joined or _JOINED.search(also.group()) is not None or following.group().startswith("nor")
    return names, ends, joined


def _next_item(text: str, at: int, options: Mapping[str, str]) -> re.Match[str] | None:
    """The next letter of a list, alone or in brackets behind its option's text."""
    for option in options.values():
        if match := _tagged(option).match(text, at):
            return match
    return _NEXT.match(text, at)


@lru_cache(maxsize=4096)
def _tagged(option: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?i:(?:(?:an?|the)\s{{1,2}})?(?:{text_pattern(option)}|[a-z-]{{2,20}}))\s{{0,2}}[(\[]([A-Z])(?=[)\]])"
    )


def _is_prose(text: str, letter: re.Match[str]) -> bool:
    """Whether the next item of a list is a word: "B, a normal lung", "B and I think"."""
    if letter[1].isupper():
        return letter[1] in "AI" and _NOUN_AFTER.match(text, letter.end()) is not None
    return _MARKED.match(text, letter.end()) is None


@lru_cache(maxsize=4096)
def _other_text_stands(letter: str, options: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """A pattern of another option's text as a statement: a clause of nothing else, or after "it is"."""
    claimed = fold_text(dict(options)[letter])
    others = [text_pattern(text) for _, text in options if len(fold_text(text)) > 1 and fold_text(text) != claimed]
    return re.compile(
        r"(?:[.!?:;\n]\s{0,3}(?:\w{1,14},?\s{1,2})?"
        r"|\b(?:i|we)\b(?:(?!\b(?:not?|without|rul\w{1,3}|exclud\w{1,4})\b|n't)[^.!?;:\n]){1,60}?(?<!\w)"
        r"|\b(?:it|this|that|answer|diagnosis)"
        r"(?:'s|\s{1,2}(?:is|was|should be|must be|would be|could be|may be|might be|has to be))\s{1,2})"
        rf"(?:(?:an?|the)\s{{1,2}})?(?:{'|'.join(others) or '(?!)'})\s{{0,2}}(?=[.!?;\n]|$)",
        re.IGNORECASE,
    )
