"""The words by which `prose` tells an assertion from all other sentences."""

import re

_FUNCTION_WORDS = """
the a an this these that it it's its that's this's of in on at to for from by with within as there which and
then here following
"""
_VERBS = """
is are was be 's it's that's shows show depicts depict displays display demonstrates demonstrate reveals reveal
represents represent suggests suggest indicates indicate confirms confirm supports support favors favor favours
favour appears appear lies sits corresponds correspond points consistent compatible typical characteristic
diagnostic pathognomonic indicative suggestive keeping suggesting indicating showing representing confirming
supporting favoring favouring corresponding makes making recommend choose
"""
_NOUNS = """
image images picture photo photograph scan figure radiograph slide view film fundus oct section photomicrograph
micrograph diagnosis modality method technique organ region finding findings feature features appearance lesion
condition disease disorder structure type kind form answer option choice conclusion pattern presence evidence
sign signs case patient step management cause culprit location grade stage category class hallmark
biopsy specimen changes picture interpretation result infection deficiency impression ct mri x-ray ultrasound
brain chest abdomen head body
"""
_OTHERS = """
recommended indicated advised preferred responsible most likely probably clearly best definitely therefore thus
so hence overall finally highly strongly primarily mainly predominantly located seen found visible situated
shown depicted used obtained acquired taken made performed perform stained using caused due classified
identified graded correct appropriate probable final main line classic plain benign large small left-sided
right-sided bilateral distal proximal imaging medical given provided would should must i'd i
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
VERBS = frozenset(_VERBS.split())
LEADING_WORDS = frozenset((_FUNCTION_WORDS + _VERBS + _NOUNS + _OTHERS).split())

_HEDGES = """
or if whether unless not no nor can could might may either neither unlik unlikely other anoth another except
least less some many possibl possible possibly false incorrect wrong without rul exclud differ differential
alternativ alternative but however versus vs never none hardly instead than rath rather only suspect suspected
previous last history report where what who how when why
"""
HEDGES = frozenset(_HEDGES.split())
"""Words of a question (their stems) that do not lead to an answer."""

NEGATED_QUESTION = re.compile(
    r"\b(?:not|except|least|false|incorrect|never|unlikely|exclud\w*|wrong|without|n't|contraindicated|inconsistent)\b",
    re.IGNORECASE,
)
"""A question of which a sentence in its words may say the opposite."""

UNBOUND = re.compile(
    r"\bi(?!'d)\b(?!\s(?:recommend|choose|would\schoose))|\b(?:would|should|must)\b(?!\s(?:be\b|choose))",
    re.IGNORECASE,
)
CONDITION = re.compile(
    r"\b(?:if|whether|unless|either|could|might|may|perhaps|maybe|initial\w*|first|glance|tempt\w*|suppose|assum\w*|imagine"
    r"|some|many|people|although|though|while|history|previous\w*|referr\w*|report\w*|said|says?|according|options|choices"
    r"|question|example|differentials?|alternativ\w*|possib\w*|unclear|uncertain|unsure|textbooks?|usual\w*|generally|often"
    r"|typically|n't\s(?:know|tell)|not\s(?:sure|certain)|little|few|hard|hardly|far\sfrom)\b|\?",
    re.IGNORECASE,
)
INTRODUCES = re.compile(
    r"\W{0,6}(?!(?:for|to|by|in\smy|per|if|when|like|were|had|should|as\s(?:an?|my)|in\s(?!this|these|conclusion|summary|the\s(?:\w+\s)?(?:image|picture|scan|photo\w*|slide|radiograph|x-ray)))\b)(?:based|given|since|because|as|considering|looking|therefore|thus|so|hence|overall|consequently"
    r"|in\s\w+|from\sthe|the|this|these|it|there|both|with|not|an?|upon|on|due|here|[\w-]+,?\s[\w-]+)\b",
    re.IGNORECASE,
)
REST_OF_SENTENCE = re.compile(
    r"\b(?:but|or|if|unless|until|although|though|however|yet|may|might|could|possib\w*|perhaps|maybe|versus|vs"
    r"|exclud\w*|ruled?|unlikely|wrong|incorrect|less|except|mimic\w*|unclear|uncertain|unsure|doubt\w*|sure|certain"
    r"|alternativ\w*|likewise|also|too|while|should|would|in\sthe\spast|previous\w*|last|ago|cannot|never|differential"
    r"|they|say|seems|believe|think|not\sthat|supposed\w*|alleged\w*|apparently|cases|times|patients|half|some|pending|instead\b(?!\sof)|not\s(?:sure|certain|confirmed|proven|seen|visible|present))\b|[?%]",
    re.IGNORECASE,
)
DOUBTED_LATER = re.compile(
    r"\b(?:but|however|though|although|hmm+|against\s(?:this|that|it)|sure|certain|certainty|unclear|uncertain\w*|unsure"
    r"|doubt\w*|perhaps|maybe|alternatively|let\sme|let's|reconsider\w*|second\sthought|other\shand|contradict\w*"
    r"|inconsistent|mistak\w*|hold\son|take\s(?:that|it|this)\sback|changed?\smy\smind|cannot\s(?:be\s)?(?:exclud|rul)\w*"
    r"|not\s(?:exclud|rul|fit|match|explain|correct|right|true|sure|so)\w*|n't\s(?:fit|match|explain|true|right|correct)"
    r"|could\salso|might|may\sbe|may\salso|or\srather|edit|correction|update|revis\w*|strike|scratch|oops|forget|ignore"
    r"|just\skidding|joking|nope|otherwise|guess|both|equally|also\s(?:possible|likely)|either)\b|\?|(?:^|[.!\n])\s{0,3}no\b",
    re.IGNORECASE,
)
EXPLAINS = re.compile(
    r"\W{0,8}(?:the|it|this|these|there|an?|on|in|based|such|its|explanation|reason(?:ing)?|rationale|given|other"
    r"|correct|final|answer)\b",
    re.IGNORECASE,
)
WHY = re.compile(
    r"\W{0,8}(?:here(?:'s|\sis)\s(?:why|the\sreason\w*)|explanation|rationale|reasoning|reasons?|why)\b[^\n]{0,40}:\s{0,3}\n",
    re.IGNORECASE,
)
NOT_THERE = re.compile(r"\bthere\s(?:is|are)\sno\b|\bno\s(?:evidence|signs?)\sof\b", re.IGNORECASE)
SPEAKS_AGAINST = re.compile(
    r"\b(?:not|no|none|never|nor|\w{1,8}n't|cannot|without|i|we|my|me|rul\w{1,4}|exclud\w*|instead|another|different\w*|elsewhere"
    r"|pending|reading|disagree\w*|refut\w*|wrong|incorrect|against|only|lacks?|absen\w*|missing|would|benign\smole"
    r"|turn(?:s|ed)\sout|since|became|become|later|now)\b",
    re.IGNORECASE,
)
_BEST_OF = """
answer option choice next initial first step diagnosis management explanation
"""
BEST_OF = frozenset(_BEST_OF.split())
"""What may be called best without saying more than the question."""
ADJECTIVE = re.compile(
    r"\s(?!(?:suspicious|dubious|previous|ambiguous|erroneous|spurious|various|treated|eliminated|anticipated|putative"
    r"|tentative|negative|alternative|debated|related|unrelated|excised|simulated|elusive|speculative|relative)\b)"
    r"\w{3,14}(?:ated|ous|ive|ical|shaped|sized)\s{1,2}$",
    re.IGNORECASE,
)
"""An adjective right before an option that says more about it and does not deny it: "a pedunculated polyp"."""
