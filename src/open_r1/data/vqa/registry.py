"""The sets by their names on the command line."""

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
