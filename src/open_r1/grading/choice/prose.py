"""An option that running text asserts by its words: "The consolidation is located in the right lower lobe."

A text may name many options and assert one. So every place where an option's text stands is looked at, and is either
an assertion (a verb such as "is" or "suggests" leads to it, in a sentence without doubt, condition, comparison or
somebody else's opinion), a rejection ("not CT", "CT is unlikely"), or neither. The text gives an option where it
asserts that one alone, nothing behind it doubts or names another, and no letter speaks for another.

Only what leads to an option is a list of words; what speaks against it is anything on a generous list. A wording that
is not foreseen therefore leaves a text unread.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from open_r1.grading.choice.claims import RETRACTION
from open_r1.grading.choice.later_statements import is_denied, is_rejected, mentions
from open_r1.grading.choice.option_texts import fold_text, text_pattern
from open_r1.grading.choice.whole_texts import SUBJECT

_MENTIONS = 64  # a text that names options more often than that is no short answer
_SENTENCE = 600  # characters of a sentence that is looked at
_AFTER = 1500  # characters that may follow an assertion

_VERBS = (
    r"(?:(?:is|are|was|lies|sits|shows?|depicts?|displays?|demonstrates?|reveals?|represents?|suggests?|indicates?|confirms?"
    r"|supports?|favou?rs?|appears?|corresponds?\s(?:to|with)|points?\s(?:to|towards?)|would\sbe|should\sbe|must\sbe)\b|'s\b)"
)
_PARTICIPLES = (
    r"(?:(?:is|are|most|more|which|and|thus|highly|strongly|all|best|makes\sthis|making\s(?:this|it)|it)\s){0,4}"
    r"(?:consistent\swith|compatible\swith|(?:typical|characteristic|diagnostic|pathognomonic)\s(?:of|for)"
    r"|(?:indicative|suggestive)\sof|in\s(?:keeping|line)\swith|suggesting|indicating|showing|representing|confirming"
    r"|supporting|favou?ring|suggests?|indicates?|confirms?|points?\sto|corresponding\sto|(?<=which\s)is|making\s(?:this|it)"
    r"|(?<=which\smakes\s)(?:this|it)|(?<=makes\sthis))"
)
_BETWEEN = (
    r"(?:\s{0,2}(?:most|likely|probably|clearly|best|definitely|therefore|thus|be|to|as|of|an?|the|located|situated|seen|visible"
    r"|found|in|on|at|within|from|with|by|using|obtained|acquired|taken|made|performed|produced|option|image|view|case"
    r"|type|form|picture|scan|deficiency|diagnosis|presence|perform|classic|typical|characteristic|consistent|compatible"
    r"|plain|benign|left-sided|right-sided|bilateral|large|small|primarily|mainly|predominantly|evidence|suggestive"
    r"|indicative|described|classified|caused|graded|choice|step|infection|stage|grade|for)\b){0,8}"
)
_LABEL = (
    r"\W{0,6}(?:(?:most\s)?(?:likely|probable|final|correct|best|primary|main|overall)\s){0,2}"
    r"(?:diagnosis|answer|conclusion|impression|modality|grade|stage|plane|location|organ|interpretation)\s?:"
)
_SUPPORT = (
    r"(?:(?:all\s)?(?:these|the|this)\s(?:\w{3,14}\s)?(?:findings?|features?|appearances?|changes?|signs?|characteristics?|picture"
    r"|pattern|presentation|combination|history|symptoms?)(?:\sof\s\w{3,20})?(?:\s(?:together|above|described|seen|shown|here|all)){0,2})"
)
_FIRST_PERSON = r"(?:i|we)(?:'d|'m|\sam|\swould|\stherefore|\swill)?\s(?:recommend|go\swith|going\swith|choose|conclude\sthat\sit\sis)"
_LEAD = re.compile(
    r"\s{0,3}(?:(?:and|so|therefore|thus|hence|overall|then|consequently|accordingly|finally)[,:]?\s){0,2}"
    rf"(?:(?:{SUBJECT}|{_SUPPORT})(?:\s(?:most\slikely|likely|probably|clearly|therefore|thus|typically))?\s?{_VERBS}|{_FIRST_PERSON}"
    rf"|{_PARTICIPLES}|{_LABEL}|\W{{0,6}}(?:→|=>)|(?:therefore|thus|hence),?){_BETWEEN}\s{{0,3}}[(\"']?",
    re.IGNORECASE,
)
_INTRODUCES = re.compile(
    r"\W{0,6}(?:based|given|since|because|as|considering|looking|therefore|thus|so|hence|overall|consequently|in\s(?:this|the|conclusion"
    r"|summary)|from\sthe|the|this|these|it|there|both|with|not|an?|upon|on|due|here)\b",
    re.IGNORECASE,
)

_DOUBT = re.compile(
    r"\b(?:not|no|\w{1,8}n't|cannot|never|neither|nor|none|unlikely|hardly|rarely|less|least|exclud\w*|rul\w{1,4}"
    r"|eliminat\w*|reject\w*|inconsistent|incompatible|against|except|unlike|other|others|rather|lack\w*|absen\w*|without"
    r"|instead|different\w*|opposed|opposite|compar\w*|difficult|mimic\w*|confus\w*|mistak\w*|misdiagnos\w*|similar"
    r"|resembl\w*|could|might|may|can|if|whether|unless|wrong|incorrect|false|doubt\w*|initial\w*|first|glance|second"
    r"|consider\w*|possib\w*|potential\w*|perhaps|maybe|alternativ\w*|differentials?|fail\w*|question\w*|suspect\w*"
    r"|suspicio\w*|beginner|concern\w*|unclear|uncertain|unsure|impossible|versus|vs|or|either|tempt\w*|wonder\w*|some|many|people"
    r"|someone|textbook|user|students?|usual\w*|typically|often|common|commonly|general\w*|sometimes|history|previous\w*"
    r"|prior|ago|last|known|family|referr\w*|report\w*|said|says?|states|claim\w*|according|asks?|asked|options|choices"
    r"|listed|candidates?|includ\w*|between|example|e\.g|imagine|suppose|assum\w*|when|once|while|although|though"
    r"|but|another|also|both|would(?!\sbe\b)|unknown|hypothe\w*|pretend|expect\w*|want\w*|wish\w*|hop\w{1,3}|afraid"
    r"|further|next\smost|help\w*|need\w*|requir\w*|test\w*|prevent\w*|risk|treat\w*|defin\w*|learn\w*|\w*thought"
    r"|believed|was\sto\sbe|used\sto|far\sfrom|nothing|nobody|anything|everything)\b|\?"
    r"|\b(?:options?|choices?)\s\(?[A-Z]\)?\s(?:is|says|reads|means|stands|describes|shows)\b",
    re.IGNORECASE,
)
_REST_OF_SENTENCE = re.compile(
    r"\b(?:but|or|if|unless|until|although|though|however|yet|may|might|could|possib\w*|perhaps|maybe|versus|vs"
    r"|exclud\w*|ruled?|unlikely|wrong|incorrect|less|except|mimic\w*|unclear|uncertain|unsure|doubt\w*|sure|certain"
    r"|alternativ\w*|likewise|also|too|while|should|would|in\sthe\spast|previous\w*|last|ago|cannot|never|differential|cases|times|patients|most|half|some)\b|[?%]",
    re.IGNORECASE,
)
_DOUBTED_LATER = re.compile(
    r"\b(?:but|however|though|although|hmm+|against\s(?:this|that|it)|sure|certain|certainty|unclear|uncertain\w*|unsure"
    r"|doubt\w*|perhaps|maybe|alternatively|let\sme|let's|reconsider\w*|second\sthought|other\shand|contradict\w*"
    r"|inconsistent|mistak\w*|hold\son|take\s(?:that|it|this)\sback|changed?\smy\smind|cannot\s(?:be\s)?(?:exclud|rul)\w*"
    r"|not\s(?:exclud|rul|fit|match|explain|correct|right|true|sure|so)\w*|n't\s(?:fit|match|explain|true|right|correct)"
    r"|could\salso|might|may\sbe|may\salso|or\srather|edit|correction|update|revis\w*|strike|scratch|oops|forget|ignore"
    r"|just\skidding|joking|nope|otherwise|guess|both|equally|also\s(?:possible|likely)|either)\b|\?|(?:^|[.!\n])\s{0,3}no\b",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(
    r"\W{0,8}(?:the|it|this|these|there|an?|on|in|based|such|its|explanation|reason(?:ing)?|rationale|given|other)\b",
    re.IGNORECASE,
)
_NOT_THERE = re.compile(r"\bthere\s(?:is|are)\sno\b|\bno\s(?:evidence|signs?)\sof\b", re.IGNORECASE)
_SPEAKS_AGAINST = re.compile(
    r"\b(?:not|no|none|never|nor|\w{1,8}n't|cannot|without|i|we|my|me|rul\w{1,4}|exclud\w*|instead|another|different\w*|elsewhere"
    r"|pending|view|reading|disagree\w*|refut\w*|unlikely|wrong|incorrect|against|only|lacks?|absen\w*|missing|would|benign\smole"
    r"|turn(?:s|ed)\sout|since|became|become|later|now)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"[)\"']{0,2}\s?\([A-Za-z][^()\n?]{1,60}\)(?=\s{0,2}(?:[.,;:!\n]|$))"
    r"|[)\"']{0,2}(?:\s{1,2}(?:image|scan|plane|view|section|deficiency|orientation|infection|study|imaging|slice))?"
    r"(?:[)\"']{0,2}\s{0,2}(?:[.,;:!\n]|$|\((?:option\s)?[A-Z]\))"
    r"|[)\"']{0,2}\s{1,2}(?:of|in|on|at|because|since|as|given|based|rather|without|which|with|here|from|using|and\snot|not|due)\b)",
    re.IGNORECASE,
)
_ENDS = re.compile(r"[.!?;](?=[\s\"')]|$)|\n")
_WHOLE_ENDS = (".", "!", ")", '"', "'", "]")
_NO_NAME = re.compile(
    r"(?:yes|no|true|false|normal|abnormal|present|absent|positive|negative|unknown|healthy|none|other|all|both|neither"
    r"|benign|malignant|cannot be determined|(?:all|none|both|any|either|neither) .*|\W*[\d<>+-].*)"
)


class _Mention(NamedTuple):
    letter: str
    start: int
    end: int
    asserted: bool
    rejected: bool


def asserted_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that a text asserts by its words, or None.

    Numbers and options such as "Normal" or "All of the above" are read where other rules read them; here they would
    be met in sentences about something else.

    Args:
        text: without markup and thoughts.
        options: letter -> text.
    """
    pattern = _names(tuple(options.items()))
    places = list(islice(pattern.finditer(text), _MENTIONS + 1))
    if not places or len(places) > _MENTIONS:
        return None
    found_at = [_mention(text, place, options) for place in places]
    asserted = [mention for mention in found_at if mention.asserted]
    if len({mention.letter for mention in asserted}) != 1:
        return None
    last = asserted[-1]
    after = text[last.end :]
    if _NO_NAME.fullmatch(fold_text(options[last.letter])) or len(after) > _AFTER:
        return None
    for mention in found_at:
        if mention.letter == last.letter and mention.rejected:
            return None
        if mention.letter != last.letter and mention.start > asserted[0].start and not mention.rejected:
            return None
    sentence_end = _ENDS.search(after)
    later = after[sentence_end.start() :] if sentence_end else ""
    if _DOUBTED_LATER.search(later) or RETRACTION.search(later) or not _explains(later):
        return None
    if later.strip() and not text.rstrip().endswith(_WHOLE_ENDS):
        return None  # cut off: what would have come is not known
    return last.letter if mentions(pattern.sub(" ", text), options) <= {last.letter} else None


def _explains(later: str) -> bool:
    """Whether every sentence behind an assertion can be read as its explanation."""
    for sentence in _ENDS.split(later):
        if sentence.strip(" \n\"')]*-") and (
            not _EXPLAINS.match(sentence) or _SPEAKS_AGAINST.search(_NOT_THERE.sub("", sentence))
        ):
            return False
    return True


@lru_cache(maxsize=4096)
def _names(options: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """A pattern of every option's text, with its letter or without; where one contains another, the longer."""
    names = []
    for letter, option in sorted(options, key=lambda item: -len(fold_text(item[1]))):
        if len(fold_text(option)) > 1:
            names.append(
                rf"(?P<{letter}>(?:(?:option\s)?[(]?{letter}[).:]{{1,2}}\s{{0,2}})?{text_pattern(option)}(?!-)"
                rf"(?:\s{{0,2}}\((?:option\s)?{letter}\))?)"
            )
    return re.compile(rf"(?<![\w-])(?:{'|'.join(names) or '(?!)'})", re.IGNORECASE)


def _mention(text: str, place: re.Match[str], options: Mapping[str, str]) -> _Mention:
    letter = place.lastgroup or ""
    low = max(0, place.start() - _SENTENCE)
    begins = [end.end() for end in _ENDS.finditer(text, low, place.start())]
    if not begins and low:
        return _Mention(letter, place.start(), place.end(), asserted=False, rejected=False)
    before = text[begins[-1] if begins else 0 : place.start()]
    ending = _ENDS.search(text, place.end(), place.end() + _SENTENCE)
    rest = text[place.end() : ending.end() if ending else place.end() + _SENTENCE]
    rejected = is_denied(before[-90:]) or is_rejected(text, place.end())
    clause, introduction = _clause(before)
    others = _names(tuple(options.items()))
    asserted = (
        not rejected
        and _LEAD.fullmatch(clause) is not None
        and not _DOUBT.search(clause)
        and not _CONDITION.search(introduction)
        and (not introduction.strip() or _INTRODUCES.match(introduction) is not None)
        and _GOES_ON.match(text, place.end()) is not None
        and not _REST_OF_SENTENCE.search(others.sub("", rest))
    )
    return _Mention(letter, place.start(), place.end(), asserted, rejected)


def _clause(before: str) -> tuple[str, str]:
    """The clause that leads to an option, and what its sentence has before it."""
    at = max(before.rstrip(" \"'(").rfind(sign, 0, max(0, len(before.rstrip(" \"'(")) - 1)) for sign in (", ", ": "))
    return before[at + 1 :], before[: max(at, 0)]


_CONDITION = re.compile(
    r"\b(?:if|whether|unless|either|could|might|may|perhaps|maybe|initial\w*|first|glance|tempt\w*|suppose|assum\w*|imagine"
    r"|some|many|people|although|though|while|history|previous\w*|referr\w*|report\w*|said|says?|according|options|choices"
    r"|question|example|differentials?|alternativ\w*|possib\w*|unclear|uncertain|unsure|n't\s(?:know|tell)|not\s(?:sure|certain))\b|\?",
    re.IGNORECASE,
)
