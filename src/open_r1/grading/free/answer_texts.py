"""The answer of a closed or open question as text: read from a completion, as a statement and not as a guess.

The last answer block counts, else the plain text; thoughts never do. A text that says "the answer is ..." is read
there, if nothing after it takes that back.
"""

import re
from collections import deque
from dataclasses import dataclass

from open_r1.grading.answer_places import AnswerPlace
from open_r1.grading.choice.claims import RETRACTION
from open_r1.grading.choice.option_texts import plain_text
from open_r1.grading.choice.prose import only_leads
from open_r1.grading.choice.whole_texts import SUBJECT, on_condition, turns_around
from open_r1.vocabulary.answer_types import yes_or_no

_CLAIM = re.compile(
    r"(?:\b(?:answer|diagnosis|conclusion)(?:\s{1,2}(?:to|for)\s{1,2}(?:the|this)\s{1,2}(?:question|problem))?\s{0,2}(?:is|:|=)\s{0,3}(?:is\s{1,2}|:\s{0,3})?"
    r"|答案\s{0,2}(?:是|为|:)\s{0,3}|回答\s{0,2}:\s{0,3})(?=\S)",
    re.IGNORECASE,
)
_CLAIM_ENDS = re.compile(r"[.!?。;](?=\s|$)|\n")
_BOX = re.compile(r"\\(?:boxed|fbox)\{([^{}]{0,400})\}")
_TEXT_IN_BOX = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]{0,400})\}")
_LABELLED = re.compile(  # "Edit: left": what follows a label is another statement, unless it gives the reason
    r"[.!?\n]\s{0,3}(?!(?:the\s{1,2})?(?:explanation|reason(?:ing)?|rationale|justification|note|findings?)\b)"
    r"[\w' ]{1,30}:\s{0,3}\S",
    re.IGNORECASE,
)
_OPPOSITES = (
    {"left": "right", "upper": "lower", "superior": "inferior", "anterior": "posterior", "medial": "lateral"}
    | {"proximal": "distal", "benign": "malignant", "normal": "abnormal", "present": "absent", "positive": "negative"}
    | {"male": "female", "increased": "decreased"}
)
_OPPOSITES |= {second: first for first, second in _OPPOSITES.items()}
_WORDS = re.compile(r"[a-z]+")
_REASON = re.compile(
    r"\s{0,2}[,;(-]?\s{0,2}\b(?:because|since|as\s{1,2}(?:the|it|this|there)|due\s{1,2}to|based\s{1,2}on)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_ANY_PREDICATE = re.compile(
    r"(?P<subject>.{2,200}?)\s(?:is|are|was)(?:\s(?:located|seen|found|situated|visible))?\s(?P<said>.{1,300})",
    re.IGNORECASE,
)
_CHINESE_PREDICATE = re.compile(r"(?:这|图中?|该图|此图|图像)(?:是|为|显示)(?!否|不)(?P<said>[^不没无]{1,100})")
_CONTRAST = re.compile(  # "axial, not coronal": a thing of the same kind, and nothing behind it
    r",?\s{1,2}(?:and\s)?(?:not|rather\sthan|instead\sof)\s(?:an?\s|(?:on\s)?the\s)?"
    r"(?:axial|coronal|sagittal|left|right|ct|mri|x-?ray|ultrasound|t1|t2|male|female|benign|malignant)"
    r"(?:\s(?:image|side|plane|view))?[.!]?\s{0,2}$",
    re.IGNORECASE,
)
_DENIED = re.compile(r"(?:\bnot|\bnever|\bno|n't|\bwhether|\bif|\bunclear|\bwrong|\bincorrect)\b[^.!?\n]{0,40}$", re.I)
_PREDICATE = re.compile(
    rf"(?:{SUBJECT}(?:\s(?:most\slikely|likely|probably|clearly))?"
    r"\s(?:is|shows|was|are|has|measures|appears to be|represents)"
    r"(?:\s(?:located|seen|found|situated|taken|obtained|acquired)(?:\s(?:with|using|by))?)?|there\s(?:is|are))"
    r"\s(?P<said>\S.{0,300})",
    re.IGNORECASE,
)
_BEGINS = re.compile(
    r"[\s\"'(\[]{0,3}(?P<word>yes|no|是的|不是|没有|不包含|包含|不存在|存在|不可以|可以|有|是|否|不(?=[,。、]))"
    r"(?:(?P<mark>\s{0,2}[,.;:!)\]\"'-])|\n|\s{0,3}$|[\u3001\u3002]|(?=\s(?:there|it|this|these)\s(?:is|are|does|do)\b))",
    re.IGNORECASE,
)
_LAST_SENTENCE = re.compile(
    r"(?:^|[.!?,;\n]\s{0,3})(?:(?:therefore|thus|so|hence|overall|in conclusion|finally|conclusion"
    r"|i\s(?:think|believe|say|would\ssay))[,:]?\s{1,3}(?:the\s{1,2}answer\s{1,2}is\s{1,2})?)?"
    r"(?P<word>yes|no)\s{0,2}[.!]?\s{0,3}$",
    re.IGNORECASE,
)


_CONCLUDED = re.compile(r"\b(?:so|therefore|thus|hence),?\s(?P<word>yes|no),", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """An answer as it was written, and the shorter forms that say the same."""

    text: str
    forms: tuple[str, ...]


def statement(place: AnswerPlace, question: str = "") -> Statement | None:
    """The answer that a text states; None where it is empty, or where what it claims is denied or taken back."""
    text = _unboxed(place.text)
    claims = deque(_CLAIM.finditer(text), maxlen=1)
    if claims:
        claim = claims[0]
        ending = _CLAIM_ENDS.search(text, claim.end())
        end = ending.start() if ending else len(text)
        said = plain_text(text[claim.end() : end]).strip()
        if _DENIED.search(text[max(0, claim.start() - 80) : claim.start()]) or _taken_back(said, text[end:]):
            return None
    else:
        said = plain_text(text).strip()
    said = _strip_marks(said) or said
    if said.endswith(("?", "\uff1f")) or not any(character.isalnum() for character in said):
        return None
    forms = [said, _REASON.sub("", said), _CONTRAST.sub("", said)]
    forms += [match["said"] for form in tuple(forms) if (match := _PREDICATE.fullmatch(" ".join(form.split())))]
    forms += [match["said"] for form in tuple(forms) if (match := _CHINESE_PREDICATE.fullmatch(form))]
    for form in tuple(forms):
        predicate = _ANY_PREDICATE.fullmatch(" ".join(form.split()))
        if predicate and only_leads(predicate["subject"], question):
            forms.append(predicate["said"])
    return Statement(said, tuple(dict.fromkeys(forms)))


def _strip_marks(said: str) -> str:
    """What was said without marks around it; the sign of a number stays."""
    bare = said.strip(" \t\n\"'*:=-")
    return f"-{bare}" if bare[:1].isdecimal() and re.match(r"[^\w-]*-\d", said) else bare


def _unboxed(text: str) -> str:
    """The text with the content of its last box as a claim, and of others as text."""
    text = _TEXT_IN_BOX.sub(r"\1", text)
    boxes = deque(_BOX.finditer(text), maxlen=1)
    if not boxes:
        return text
    box = boxes[0]
    return f"{text[: box.start()]} answer: {box[1]}.\n{text[box.end() :].lstrip(' .$')}"


def _taken_back(said: str, rest: str) -> bool:
    """Whether what follows a claim speaks for something else."""
    if RETRACTION.search(rest) or _LABELLED.search(rest):
        return True
    polarity = yes_or_no(said)
    if polarity is not None and turns_around(rest, 0, "yes" if polarity else "no"):
        return True
    opposites = {_OPPOSITES[word] for word in _WORDS.findall(said.lower()[:400]) if word in _OPPOSITES}
    return bool(opposites.intersection(_WORDS.findall(rest.lower())))


def polarity(place: AnswerPlace) -> bool | None:
    """Whether a text answers yes (True) or no (False); None where it does neither, or both."""
    stated = statement(place)
    if stated is None:
        return None
    for form in stated.forms:
        answer = yes_or_no(form)
        if answer is not None:
            return answer
    text = plain_text(_unboxed(place.text)) if stated.text == plain_text(place.text).strip() else stated.text
    begins = _BEGINS.match(text)
    if begins is not None:
        answer = yes_or_no(begins["word"])
        rest = begins.end("word")
        if on_condition(text, rest):
            return None
        taken_back = RETRACTION.search(text, rest) or turns_around(text, rest, "yes" if answer else "no")
        return None if taken_back else answer
    inner = deque(_CONCLUDED.finditer(text), maxlen=1)
    if inner:
        answer, rest = yes_or_no(inner[0]["word"]), inner[0].end("word")
        against = RETRACTION.search(text, rest) or turns_around(text, rest, "yes" if answer else "no")
        return None if against or turns_around(text[: inner[0].start()], 0, "yes" if answer else "no") else answer
    ends = _LAST_SENTENCE.search(text[-200:])
    if ends is None or turns_around(
        text[: -len(ends.group()) or None], 0, "no" if yes_or_no(ends["word"]) is False else "yes"
    ):
        return None
    return yes_or_no(ends["word"])
