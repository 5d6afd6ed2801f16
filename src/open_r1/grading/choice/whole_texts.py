"""Answers that a whole text gives without a claim: by its first words, its last words, or as one plain sentence.

Each reader returns the letter or None, and none where other words of the text speak against it.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from open_r1.grading.choice.claims import RETRACTION
from open_r1.grading.choice.later_statements import contradicted, mentions
from open_r1.grading.choice.option_texts import ENDS, fold_text, longest_option, text_pattern

_REASON = r"(?:because|since|as\s{1,2}(?:the|it|this|there)|due\s{1,2}to|based\s{1,2}on|given\s{1,2}(?:the|that))\b"
_REASONED = re.compile(rf"[\s\"')\]]{{0,3}}[.,;(-]?\s{{0,3}}{_REASON}", re.IGNORECASE)
_EXPLAINED = re.compile(
    r"[\"')\]]{0,3}(?:[.]\s{1,4}|\s{0,3}\n\s{0,3})"
    r"(?:the|this|these|there|it|in|on|based|given|explanation|reason(?:ing)?|rationale|justification)\b",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    r"\b(?:not|no|\w{1,8}n't|cannot|never|neither|wrong|incorrect|false|unlikely|excluded|ruled|rejected|less|lacks?"
    r"|absent|without|inconsistent|incompatible|impossible|implausible)\b",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"(?:no|none|not|normal|negative|absent|healthy|without)\b")
_FIRST_SENTENCE = re.compile(r"[^.!?\n]{0,300}")


def first_words(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of a text that begins with it and goes on with a reason: "C) Pneumonia, because ...", "C. The ...".

    The first option needs a word such as "because" where other letters follow, since a walk through the options begins
    with it too.

    Args:
        text: without markup and thoughts.
        options: letter -> text.
    """
    text = text.lstrip()
    for letter, option in options.items():
        name = _opening(letter, option).match(text)
        if name is None:
            continue
        reasoned = _REASONED.match(text, name.end())
        is_first = letter == next(iter(options)) and name.group("text") is not None
        is_first = is_first and bool(mentions(text[name.end() :], options) - {letter})
        explained = None if reasoned or is_first else _EXPLAINED.match(text, name.end())
        if not reasoned and not explained:
            return None
        if explained and not _NOTHING.match(fold_text(option)):  # "D) Normal. The image shows no opacity."
            sentence = _FIRST_SENTENCE.match(text, explained.end())
            if sentence and _AGAINST.search(sentence.group()):
                return None
        if RETRACTION.search(text, name.end()) or contradicted(text, name.end(), letter, options):
            return None
        return letter
    return None


@lru_cache(maxsize=4096)
def _opening(letter: str, option: str) -> re.Pattern[str]:
    body = rf"(?:[).:\]]{{0,2}}\s{{0,3}}[-:]?\s{{0,3}}(?P<text>(?i:{text_pattern(option)})))?"
    lead = r"(?:(?i:option|choice|answer)\s{1,2})?"
    return re.compile(rf"{lead}[(\"'\[]{{0,2}}{letter}{body}(?![A-Za-z0-9'-])[)\]]?")


# ------------------------------------------------------------------------------------------------- last words

_LEADS = (
    r"(?:\b(?:is|be|are|was|as|with|to|in|of|therefore|thus|so|suggests?|suggesting|indicates?|indicating|supports?"
    r"|supporting|favou?rs?|favou?ring|choose|select|pick|likely|probably|toward|towards|has|have|shows?|showing|depicts"
    r"|using|via|by|from|gives|yields|makes|equals)|'s|[:\n])"
    r"\s{1,3}(?:(?:an?|the|option|choice|answer|most|likely|probably|clearly)\s{1,2}){0,3}(?:[\w-]{1,20}\s{1,2}){0,3}"
)
_DOUBT = re.compile(
    r"\b(?:not|no|\w{1,8}n't|cannot|never|neither|nor|unlikely|hardly|barely|scarcely|rarely|poorly|less|least|exclud\w*"
    r"|rul\w{1,4}|eliminat\w*|reject\w*|inconsistent|incompatible|against|except|unlike|other|rather|than|lack\w*"
    r"|absen\w*|without|instead|differ\w*|opposed|opposite|compar\w*|difficult|mimic\w*|confus\w*|mistak\w*|similar"
    r"|in\s{1,2}contrast|could|might|may|if|whether|wrong|incorrect|false|doubt\w*|initially|first|consider\w*|possibl[ey]|fail\w*"
    r"|question\w*|suspect\w*|options\s{1,2}(?:are|were|include)|unclear|uncertain|impossible|versus|vs|or)\b",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r"[.!?;\n]")


def last_words(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of a text that ends on it beside its own text: "... is most consistent with C) Pneumonia."

    The sentence must lead to it ("is", "with", "suggests"), without a word of doubt, denial or comparison, and without
    another letter.
    """
    if text.rstrip().endswith("?"):
        return None
    tail = text.rstrip(ENDS + ")]")[-(400 + 2 * longest_option(options)) :]
    tail += ")" * (text.rstrip(ENDS)[-1:] == ")")
    for letter, option in options.items():
        match = _ending(letter, option).search(tail)
        if match is None:
            continue
        sentence = _CLAUSES.split(tail[: match.start("name")])[-1]
        if _DOUBT.search(sentence) or mentions(sentence, options) - {letter}:
            return None
        return letter
    return None


@lru_cache(maxsize=4096)
def _ending(letter: str, option: str) -> re.Pattern[str]:
    text = rf"(?i:{text_pattern(option)})"
    name = rf"(?:{letter}[)\]]?[).:\]]\s{{0,3}}[-:]?\s{{0,3}}{text}|{text}[.]?\s{{0,2}}\((?i:option\s)?{letter}\))"
    return re.compile(rf"(?i:{_LEADS})[(\"'\[]{{0,2}}(?P<name>{name})[)\s]{{0,2}}$")


# ------------------------------------------------------------------------------------------- one plain sentence

_NOUN = (
    r"(?:image|picture|photo(?:graph)?|scan|figure|x-ray|radiograph|slide|modality|method|technique|organ|region|diagnosis"
    r"|finding|abnormality|lesion|condition|disease|disorder|structure|plane|type|view|anomaly|pathology|body\s{1,2}part"
    r"|mass|tumou?r|nodule|opacity|fracture|effusion|side|location|size|colou?r|patient|ha?emorrhage|infarct(?:ion)?"
    r"|calcification|fluid|number\s{1,2}of\s{1,2}[a-z]{2,20})"
)
SUBJECT = (
    r"(?:it|this|that|(?:the|this)\s{1,2}(?:(?:given|shown|provided|medical|imaging|most|likely|main|primary|observed"
    r"|specific|visible|depicted|underlying|type\s{1,2}of|kind\s{1,2}of|chest|brain|abdominal|axial|coronal|sagittal"
    r"|frontal|lateral|ct|mri|plain|clinical|present|current|overall|final)\s{1,2}){0,4}"
    rf"{_NOUN}(?:\s{{1,2}}(?:in|of|on|for|used|shown|depicted|seen|is|present|visible|to\s{{1,2}}take|the|this|here|that"
    rf"|patient|case|{_NOUN})){{0,8}}?)"
)


def plain_sentence(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of a text that is one sentence about the image: "The image shows a chest X-ray."

    Its subject must be the image or what is asked about it, and the option's full text its predicate.
    """
    stated = " ".join(text.split()) if len(text) <= 400 + longest_option(options) else ""
    if not stated:
        return None
    letters = [letter for letter, option in options.items() if _sentence(option).fullmatch(stated)]
    return letters[0] if len(letters) == 1 else None


@lru_cache(maxsize=4096)
def _sentence(option: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?:{SUBJECT}\s(?:is|shows|depicts|displays|was|appears(?: to be| to show)?|represents)"
        r"(?:\s(?:located|seen|found|situated|obtained|acquired|taken|made|produced))?|there\s(?:is|are))"
        r"(?:\s(?:most likely|likely|clearly|in|on|at|from|of|with|using|by|an?|the)){0,4}"
        r"(?:\s(?:left-sided|right-sided|bilateral|large|small|moderate|mild|severe|acute|chronic|typical|diffuse|focal)){0,2}"
        rf"\s\"?{text_pattern(option)}"
        rf"(?:\s(?:image|scan|in this image))?[.!\"]{{0,2}}"
        rf"|(?:(?:an?|the)\s)?{text_pattern(option)}\s(?:is|are)\s(?:shown|depicted|displayed)\sin\s(?:the|this)\s(?:image|picture|scan)\.?",
        re.IGNORECASE,
    )


# ---------------------------------------------------------------------------------------------------- yes and no

_YES_NO = {"yes": "no", "no": "yes"}
_YES_NO_OPTION = re.compile(r"^(yes|no)[,;:.]\s.*", re.DOTALL)  # "Yes, there is an abnormality"
_BEGINS_YES_NO = re.compile(r"[\s\"'(\[]{0,3}(yes|no)\b\s{0,2}(?:[,.;:!)\]\"'-]|\n|$)", re.IGNORECASE)


def yes_or_no(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of an option "Yes" or "No" whose word a text begins with: "Yes, there is an effusion."

    Another "yes" or "no" that stands as an answer later, or a letter of another option, leaves it unread.
    """
    letters = {_YES_NO_OPTION.sub(r"\1", fold_text(option)): letter for letter, option in options.items()}
    begins = _BEGINS_YES_NO.match(text)
    if begins is None or begins[1].lower() not in letters:
        return None
    word = begins[1].lower()
    letter = letters[word]
    if RETRACTION.search(text, begins.end(1)) or turns_around(text, begins.end(1), word):
        return None
    if on_condition(text, begins.end(1)):
        return None
    return None if contradicted(text, begins.end(1), letter, options) else letter


_CONDITION = re.compile(
    r"[^.!?\n]{0,200}\b(?:unless|if|except|provided|assuming|depending|until|or)\b|[^.!\n]{0,200}\?", re.IGNORECASE
)


def on_condition(text: str, start: int) -> bool:
    """Whether the sentence that goes on at `start` is a question, or makes its answer depend on something."""
    return _CONDITION.match(text, start) is not None


def turns_around(text: str, start: int, word: str) -> bool:
    """Whether the other of "yes" and "no" stands as an answer of its own after `start`."""
    return _standing(_YES_NO[word]).search(text, start) is not None


@lru_cache(maxsize=2)
def _standing(word: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?:[.,;:!?\n(-]|\b(?:is|be|say|to|answer|actually|rather|but|then|and|or|now|it's))\s{{0,3}}[\"']?{word}\b"
        r"\s{0,2}(?:[.,;:!?)\n\"'-]|$)",
        re.IGNORECASE,
    )
