"""PMC-VQA: the files of its first version, whose test was checked by hand in part, and those of the second.

The first version names the answer by text and letter, the second by letter, beside a caption that often holds the
answer and is never shown. Both write the letter before every option.
"""

from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.text.questions import gold_index, names_gold, optional_text
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import without_prefix
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, choice_question, numbered

TITLE = "PMC-VQA"
_LETTERS = "ABCD"
_TEXT, _LABEL = ("Answer", "Anwser"), ("Answer_label", "Anwser_label")  # early files have the second spelling


def first_version(row: Row, context: ReaderContext) -> VqaQuestion:
    """Figure_path, Question, Answer (text), Choice A to D, Answer_label."""
    options = _options(row, context)
    gold = gold_index(optional_text(row, *_LABEL), options)
    answer = optional_text(row, *_TEXT)
    if answer is not None and not names_gold(answer, gold, options):
        right = list(options.values())[gold]
        raise RowError("answer-contradicts", f"the letter names {right!r:.60}, the answer says {answer!r:.60}")
    return _question(row, context, options, gold)


def second_version(row: Row, context: ReaderContext) -> VqaQuestion:
    """index, Figure_path, Caption, Question, Choice A to D, Answer (letter), split."""
    options = _options(row, context)
    return _question(row, context, options, gold_index(row.get("Answer"), options))


def _options(row: Row, context: ReaderContext) -> dict[str, str]:
    return {letter: without_prefix(letter, context.text(row, f"Choice {letter}", "an option")) for letter in _LETTERS}


def _question(row: Row, context: ReaderContext, options: dict[str, str], gold: int) -> VqaQuestion:
    images = numbered([context.images.named(row.get("Figure_path"))])
    return choice_question(context.text(row, "Question", "the question"), list(options.values()), gold, images, TITLE)


def _second(row: Row) -> str:
    """The second version is a set of its own: its figures are parts of those of the first."""
    return "v2"


PMC_VQA = Source(
    TITLE,
    (
        Form(
            "PMC-VQA, first version",
            {"train": ("train.csv",), "test": ("test_clean.csv", "test.csv")},
            ("Figure_path", "Question", "Choice A", "Choice D"),
            first_version,
            absent=("Caption", "split"),
            fits=lambda rows: any(label in rows[0] for label in _LABEL),
            image_folders=("images", ""),
        ),
        Form(
            "PMC-VQA, second version",
            {"train": ("train_2.csv",), "test": ("test_2.csv",)},
            ("Figure_path", "Caption", "Question", "Choice A", "Choice D", "Answer", "split"),
            second_version,
            absent=_LABEL,
            set_of=_second,
            image_folders=("figures", "images_2", "images_2/figures", ""),
        ),
    ),
)
