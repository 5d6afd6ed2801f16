"""VQA-RAD: OSF's file, the two files of MEVF, and the hub's Parquet.

The official test questions are those whose phrase type begins with `test_`. MEVF's files hold the same split with the
framed questions written out, and no phrase type that would say so. The hub's form is in lower case and says neither who
is closed nor which organ is shown.
"""

from collections.abc import Sequence

from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.vqa.forms import Form, Source, holds_images, values_of
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, answer_question, numbered, topic_of

TITLE = "VQA-RAD"
_FOLDERS = ("VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "images")
_PHRASE_TYPES = ("freeform", "para", "frame")
_VQA_MED_ANSWERS = {
    *("xr - plain film", "us - ultrasound", "mr - t2 weighted", "ct with iv contrast", "lung, mediastinum, pleura"),
    *("skull and contents", "spine and contents", "heart and great vessels", "face, sinuses, and neck"),
}
"""Names of modalities and organs as only VQA-Med writes them."""


def marked(row: Row, context: ReaderContext) -> VqaQuestion:
    """OSF's and MEVF's rows: image_name, image_organ, question, answer, answer_type."""
    return answer_question(
        context.text(row, "question"),
        context.text(row, "answer"),
        numbered([context.images.named(row.get("image_name"))]),
        TITLE,
        marked_closed=context.marked_closed(row, "answer_type"),
        subject=topic_of(row, "image_organ"),
    )


def unmarked(row: Row, context: ReaderContext) -> VqaQuestion:
    """The hub's rows: image, question, answer."""
    images = numbered([context.images.stored(row.get("image"))])
    return answer_question(context.text(row, "question"), context.text(row, "answer"), images, TITLE)


def split_of(row: Row) -> str:
    """Test or train, by OSF's phrase type.

    Raises:
        RowError: the phrase type is none of the published ones.
    """
    phrase_type = str(row.get("phrase_type")).strip()
    kind = phrase_type.removeprefix("test_")
    if kind not in _PHRASE_TYPES:
        raise RowError("unknown-split", f"phrase_type is {row.get('phrase_type')!r}; its split is unknown")
    return "train" if kind == phrase_type else "test"


def holds_vqa_med(rows: Sequence[Row]) -> bool:
    """Whether rows under MEVF's file names are VQA-Med 2019, as one repository publishes them."""
    return not any(row.get("image_organ") for row in rows) or bool(values_of(rows, "answer") & _VQA_MED_ANSWERS)


VQA_RAD = Source(
    TITLE,
    (
        Form(
            "VQA-RAD as OSF publishes it",
            {"": ("VQA_RAD*Dataset*Public.json", "data/osfstorage/VQA_RAD*Dataset*Public.json")},
            ("image_name", "question", "answer", "answer_type", "phrase_type", "qid_linked_id"),
            marked,
            split_of=split_of,
            image_folders=(*_FOLDERS, "data/osfstorage/VQA_RAD Image Folder", ""),
            most_rows=2248,
        ),
        Form(
            "VQA-RAD as MEVF publishes it",
            {"train": ("trainset.json", "data_RAD/trainset.json"), "test": ("testset.json", "data_RAD/testset.json")},
            ("image_name", "question", "answer", "answer_type", "phrase_type"),
            marked,
            absent=("qid_linked_id",),
            fits=lambda rows: not holds_vqa_med(rows),
            image_folders=(*_FOLDERS, "data_RAD/images", ""),
            most_rows=3064,
        ),
        Form(
            "VQA-RAD as the hub has it",
            {
                "train": ("data/train-*.parquet", "train-*.parquet"),
                "test": ("data/test-*.parquet", "test-*.parquet"),
            },
            ("image", "question", "answer"),
            unmarked,
            absent=("options", "answer_type", "question_id"),
            fits=holds_images,
            embeds_images=True,
            most_rows=1797,
        ),
    ),
)
