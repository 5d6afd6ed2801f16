"""MedFrameQA: two to five frames of a video and up to six options."""

from open_r1.data.text.files import Row
from open_r1.data.text.questions import gold_index, text_of
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import listed_options
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, choice_question, known_modality, topic_of

TITLE = "MedFrameQA"
_COLUMNS = 5  # image_1 to image_5


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """question, options (a list of texts), correct_answer (a letter), image_1 to image_5, system, modality."""
    cells = {number: row.get(f"image_{number}") for number in range(1, _COLUMNS + 1)}
    options = listed_options(row.get("options"))
    return choice_question(
        text_of(row, "question"),
        list(options.values()),
        gold_index(row.get("correct_answer"), options),
        {number: context.images.stored(cell) for number, cell in cells.items() if cell is not None},
        TITLE,
        modality=known_modality(row.get("modality")),
        subject=topic_of(row, "system"),
    )


MEDFRAMEQA = Source(
    TITLE,
    (
        Form(
            "MedFrameQA as the hub has it",
            {"test": ("data/test-*.parquet", "test-*.parquet")},
            ("question", "options", "correct_answer", "image_1", "image_2"),
            question,
            embeds_images=True,
        ),
    ),
)
