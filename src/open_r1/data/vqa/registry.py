"""The sets by their names on the command line."""

import re
from difflib import get_close_matches

from open_r1.common.errors import UserError
from open_r1.data.vqa.forms import Source
from open_r1.data.vqa.readers.huatuo import HUATUO
from open_r1.data.vqa.readers.medframeqa import MEDFRAMEQA
from open_r1.data.vqa.readers.medvlthinker import MEDVLTHINKER
from open_r1.data.vqa.readers.medxpertqa import MEDXPERTQA_MM
from open_r1.data.vqa.readers.mmmu import MMMU, MMMU_PRO
from open_r1.data.vqa.readers.pathvqa import PATHVQA
from open_r1.data.vqa.readers.pmc_vqa import PMC_VQA
from open_r1.data.vqa.readers.slake import SLAKE
from open_r1.data.vqa.readers.vlmevalkit import VLMEVALKIT
from open_r1.data.vqa.readers.vqa_med import VQA_MED
from open_r1.data.vqa.readers.vqa_rad import VQA_RAD

SOURCES: dict[str, Source] = {
    "vqa_rad": VQA_RAD,
    "slake": SLAKE,
    "pathvqa": PATHVQA,
    "pmc_vqa": PMC_VQA,
    "medxpertqa_mm": MEDXPERTQA_MM,
    "mmmu": MMMU,
    "mmmu_pro": MMMU_PRO,
    "medframeqa": MEDFRAMEQA,
    "vqa_med_2019": VQA_MED,
    "huatuo": HUATUO,
    "medvlthinker": MEDVLTHINKER,
    "vlmevalkit": VLMEVALKIT,
}

_OTHER_NAMES = {"medxpertqa": "medxpertqa_mm", "vqamed": "vqa_med_2019", "gmaimmbench": "vlmevalkit"}


def source_name(text: str) -> str:
    """The name in SOURCES that is meant: `VQA-RAD` is vqa_rad.

    Raises:
        UserError: there is no such set; the message suggests one, or lists all.
    """
    key = _key(text)
    by_key = {_key(name): name for name in SOURCES} | _OTHER_NAMES
    if key in by_key:
        return by_key[key]
    similar = get_close_matches(key, by_key, n=1)
    hint = f" (did you mean {by_key[similar[0]]}?)" if similar else ""
    raise UserError(f"SOURCE {text} is not known{hint}; choose one of {', '.join(SOURCES)}")


def _key(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())
