"""Readers of the published text question sets.

MedQA, MedXpertQA, MedMCQA, PubMedQA, MMLU-medical, MMLU-Pro medical, GPQA, HuatuoGPT-o1's evaluation file and m23k. An
unusable row becomes a `Dropped` with its reason; a row of another subject is skipped and counted.
"""

import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from open_r1.common.errors import UserError
from open_r1.data.answer_texts import as_read, without_marks
from open_r1.data.rows import RowError, row_id
from open_r1.data.text.files import Row, rows_of
from open_r1.data.text.questions import (
    OtherSubject,
    Reader,
    Reading,
    TextQuestion,
    gold_index,
    make_question,
    names_gold,
    optional_text,
    options_by_letter,
    read_set,
    text_of,
)
from open_r1.grading.problems import LETTERS

# ------------------------------------------------------------------------------------------------- one question


_CHOICES = re.compile(r"(?:^|\n)\s{0,4}Answer Choices:\s{0,4}(?=\(A\))")
_CHOICE = re.compile(r"(?:^|(?<=\s))\(([A-Z])\)\s")


def split_choices(text: str) -> tuple[str, dict[str, str]]:
    """Question and options of a text that ends with `Answer Choices: (A) x (B) y`; no options if it does not.

    Raises:
        RowError: the markers are ambiguous, so the options are unknown.
    """
    starts = list(_CHOICES.finditer(text))
    if not starts:
        return text, {}
    listed = text[starts[-1].end() :]
    marks = list(_CHOICE.finditer(listed))
    letters = [mark.group(1) for mark in marks]
    if letters != list(LETTERS[: len(letters)]):
        raise RowError("ambiguous-options", f"the options cannot be told apart: {' '.join(letters)}")
    ends = [mark.start() for mark in marks[1:]] + [len(listed)]
    texts = [listed[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return text[: starts[-1].start()], dict(zip(letters, texts, strict=True))


def without_choices(text: str) -> str:
    """A question without the options that `Answer Choices: (A) x (B) y` repeats at its end."""
    starts = list(_CHOICES.finditer(text))
    return text[: starts[-1].start()] if starts else text


# ----------------------------------------------------------------------------------------------------- readers


def medqa(row: Row) -> TextQuestion:
    """MedQA, 4 or 5 options: question, options {letter: text}, answer, answer_idx[, meta_info]."""
    options = options_by_letter(row.get("options"))
    gold = gold_index(text_of(row, "answer_idx"), options)
    texts = list(options.values())
    answer = optional_text(row, "answer")
    if answer is not None and not names_gold(answer, gold, options):
        raise RowError("answer-contradicts", f"answer_idx names {texts[gold]!r:.60}, answer says {answer!r:.60}")
    return make_question(text_of(row, "question"), texts, gold, "MedQA", optional_text(row, "meta_info"), row.get("id"))


def choices(source: str) -> Reader:
    """MedXpertQA and all sets in its form: question, options as a dict, a list of {letter, content} or within the
    question, label as a letter or a list of one."""

    def read(row: Row) -> TextQuestion:
        question, within = split_choices(text_of(row, "question"))
        options = options_by_letter(row["options"]) if row.get("options") else within
        if not options:
            raise RowError("no-options", "there are neither options nor 'Answer Choices: (A) ...' in the question")
        gold = gold_index(row.get("label"), options)
        kind = optional_text(row, "question_type", "subject")
        return make_question(question, list(options.values()), gold, source, kind, row.get("id"))

    return read


def medmcqa(base: int) -> Reader:
    """MedMCQA: question, opa..opd, cop, which counts from `first` (0 or 1), subject_name."""

    def read(row: Row) -> TextQuestion:
        texts = [*without_marks({key[-1].upper(): text_of(row, key) for key in ("opa", "opb", "opc", "opd")}).values()]
        key = _cop(row)
        if key is None or key < 0:
            raise RowError("no-label", f"cop is {row.get('cop')!r}: the test split is published without answers")
        kind = optional_text(row, "subject_name")
        return make_question(text_of(row, "question"), texts, key - base, "MedMCQA", kind, row.get("id"))

    return read


def _cop(row: Row) -> int | None:
    try:
        return int(str(row.get("cop")))
    except ValueError:
        return None


_EXPLAINED = re.compile(r"\b(?:ans(?:wer)?)\b[\s.:\-]{0,4}(?:is\b)?[\s.:\-'\"(]{0,6}([a-d])\b", re.IGNORECASE)
_ENOUGH = 5  # explanations that name a letter; fewer are no evidence


def cop_base(rows: Iterable[Row | RowError], path: str | Path) -> tuple[int, str]:
    """Whether `cop` counts from 0 (the hub) or from 1 (the original files), and the evidence for it.

    A 0 or a 4 anywhere decides; otherwise explanations that begin "Ans. is 'b'", if they agree.

    Raises:
        UserError: both occur, or there is no evidence; `--medmcqa_cop` must say it.
    """
    remedy = "say with --medmcqa_cop 0 (as on the hub) or --medmcqa_cop 1 (the original files) how it counts"
    values: set[int] = set()
    agree = {0: 0, 1: 0}
    for row in rows:
        key = None if isinstance(row, RowError) else _cop(row)
        if key is None or isinstance(row, RowError):
            continue
        values.add(key)
        explained_letter = _EXPLAINED.search(str(row.get("exp") or "")[:200])
        for base in agree:
            agree[base] += bool(explained_letter) and "abcd".index(explained_letter[1].lower()) == key - base
    if {0, 4} <= values:
        raise UserError(f"{path}: cop takes the values 0 and 4, so it counts neither from 0 nor from 1; {remedy}")
    if 0 in values or 4 in values:
        return (0, "cop counts from 0: a 0 occurs") if 0 in values else (1, "cop counts from 1: a 4 occurs")
    total = sum(agree.values())
    for base, count in agree.items():
        if count >= _ENOUGH and count >= 0.9 * total:
            return base, f"cop counts from {base}: {count} of {total} explanations name that letter"
    if not values - {-1}:
        return 0, "cop is given nowhere"
    raise UserError(
        f"{path}: cop takes only the values {', '.join(map(str, sorted(values)))}, which fit counting from 0 and 1, "
        f"and {total} explanations do not decide; {remedy}"
    )


PUBMEDQA_OPTIONS = ("yes", "no", "maybe")


def pubmedqa(row: Row) -> TextQuestion:
    """PubMedQA, original (QUESTION, CONTEXTS, final_decision) or hub form (question, context.contexts)."""
    question = text_of(row, "QUESTION" if "QUESTION" in row else "question")
    contexts = row.get("CONTEXTS")
    if contexts is None and isinstance(row.get("context"), dict):
        contexts = row["context"].get("contexts")
    if not isinstance(contexts, list | tuple) or not all(isinstance(context, str) for context in contexts):
        raise RowError("no-context", f"CONTEXTS must be a list of texts, not {contexts!r:.80}")
    decision = as_read(text_of(row, "final_decision")).lower()
    if decision not in PUBMEDQA_OPTIONS:
        raise RowError("answer-not-offered", f"final_decision {decision!r} is none of {', '.join(PUBMEDQA_OPTIONS)}")
    if not question.strip():
        raise RowError("empty-question", "the question is empty")
    full_question = "\n".join([*(context.strip() for context in contexts), question.strip()])
    gold = PUBMEDQA_OPTIONS.index(decision)
    return make_question(full_question, PUBMEDQA_OPTIONS, gold, "PubMedQA", None, row.get("id", row.get("pubid")))


MMLU_SUBJECTS = (
    *("anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics"),
    "professional_medicine",
)
"""The six medical subjects of MMLU."""


def mmlu_medical(row: Row) -> TextQuestion:
    """MMLU, in MedXpertQA's evaluation form or as on the hub (question, choices, answer as a number)."""
    subject = optional_text(row, "subject")
    if subject is not None and subject.replace(" ", "_") not in MMLU_SUBJECTS:
        raise OtherSubject
    if "choices" not in row:
        return choices("MMLU-medical")(row)
    options = options_by_letter(row["choices"])
    answer = text_of(row, "answer")
    gold = int(answer) if re.fullmatch(r"\d{1,2}", answer) else gold_index(answer, options)
    return make_question(text_of(row, "question"), list(options.values()), gold, "MMLU-medical", subject, row.get("id"))


MMLU_PRO_CATEGORIES = ("health", "biology")


def mmlu_pro_medical(row: Row) -> TextQuestion:
    """MMLU-Pro: question, options[], answer (a letter), category; health and biology, options "N/A" left out."""
    category = text_of(row, "category").strip().lower()
    if category not in MMLU_PRO_CATEGORIES:
        raise OtherSubject
    options = options_by_letter(row.get("options"))
    correct_letter = list(options)[gold_index(text_of(row, "answer"), options)]
    offered = {letter: text for letter, text in options.items() if text.strip().upper() != "N/A"}
    if correct_letter not in offered:
        raise RowError("answer-not-offered", f"the answer {correct_letter} is an option 'N/A'")
    gold = list(offered).index(correct_letter)
    origin = row.get("question_id", row.get("id"))
    return make_question(text_of(row, "question"), list(offered.values()), gold, "MMLU-Pro-medical", category, origin)


GPQA_DOMAIN = "Biology"


def gpqa(seed: int) -> Reader:
    """GPQA: Question, Correct Answer, Incorrect Answer 1-3, in an order drawn from the seed and the question alone.

    Where the row names its domain, only biology counts as medical.
    """

    def read(row: Row) -> TextQuestion:
        domain = optional_text(row, "High-level domain")
        if domain is not None and domain.strip() != GPQA_DOMAIN:
            raise OtherSubject
        question = text_of(row, "Question")
        keys = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
        texts = [text_of(row, key) for key in keys]
        order = list(range(len(texts)))
        random.Random(f"{seed}:{row_id('', question, texts[0])}").shuffle(order)
        options = [texts[place] for place in order]
        return make_question(
            question, options, order.index(0), "GPQA", optional_text(row, "Subdomain"), row.get("Record ID")
        )

    return read


def huatuo_file(row: Row) -> TextQuestion:
    """HuatuoGPT-o1's evaluation file: question, options, answer, answer_idx, under the name of its source."""
    options = options_by_letter(row.get("options"))
    gold = gold_index(text_of(row, "answer_idx"), options)
    source = optional_text(row, "source")
    if source is None:
        raise RowError("no-source", "the row stands under no source; the file is an object of source -> list")
    return make_question(text_of(row, "question"), list(options.values()), gold, source, None, row.get("id"))


_LINE = re.compile(r"(?:^|\n)([A-Z])\. ")


def m23k(row: Row) -> TextQuestion:
    """MedVLThinker's text questions: prompt (the question, then each option as `A. text` on a line), answer_idx (from
    0), answer_letter, answer_string."""
    prompt = text_of(row, "prompt")
    marks = list(_LINE.finditer(prompt))
    if not marks:
        raise RowError("no-options", "no line of the prompt begins with 'A. '")
    if [mark[1] for mark in marks] != list(LETTERS[: len(marks)]):
        raise RowError("ambiguous-options", f"the options cannot be told apart: {' '.join(mark[1] for mark in marks)}")
    ends = [*(mark.start() for mark in marks[1:]), len(prompt)]
    texts = [prompt[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    options = dict(zip(LETTERS, texts, strict=False))
    gold = gold_index(text_of(row, "answer_letter"), options)
    number, answer = row.get("answer_idx"), optional_text(row, "answer_string")
    if number not in (None, gold) or (answer is not None and not names_gold(answer, gold, options)):
        raise RowError(
            "answer-contradicts", f"answer_letter names {texts[gold]!r:.60}, the others {number}, {answer!r:.60}"
        )
    return make_question(prompt[: marks[0].start()], texts, gold, "m23k", optional_text(row, "source"), row.get("id"))


READERS: dict[str, Callable[[int], Reader]] = {
    "medqa": lambda seed: medqa,
    "medxpertqa": lambda seed: choices("MedXpertQA"),
    "pubmedqa": lambda seed: pubmedqa,
    "mmlu_medical": lambda seed: mmlu_medical,
    "mmlu_pro_medical": lambda seed: mmlu_pro_medical,
    "gpqa": gpqa,
    "huatuo": lambda seed: huatuo_file,
    "m23k": lambda seed: m23k,
}
"""Name on the command line -> function that makes the reader for a seed. MedMCQA's reader depends on the whole file."""
SETS = ("medqa", "medmcqa", "medxpertqa", "pubmedqa", "mmlu_medical", "mmlu_pro_medical", "gpqa", "huatuo", "m23k")

_EVALUATION_FORM = {
    "medqa": ("answer_idx", "MedQA"),
    "medmcqa": ("cop", "MedMCQA"),
    "pubmedqa": ("final_decision", "PubMedQA"),
}
"""Sets that MedXpertQA's repository also has in its evaluation form: a key of the published form, and the source."""


def _in_evaluation_form(rows: Iterable[tuple[str, Row | RowError]], key: str) -> bool:
    """Whether rows have the answer key of MedXpertQA's evaluation, and none has that of the published set."""
    valid_rows = [row for _, row in rows if isinstance(row, dict)]
    return any("label" in row for row in valid_rows) and not any(key in row for row in valid_rows)


def read_file(name: str, path: str | Path, seed: int = 42, medmcqa_cop: int | None = None) -> Reading:
    """All questions of one file of one of `SETS`.

    Args:
        name: which set it is.
        path: JSON lines, JSON, Parquet or CSV.
        seed: of GPQA's shuffle.
        medmcqa_cop: whether MedMCQA's `cop` counts from 0 or 1; None infers it from the file.

    Raises:
        UserError: the file is not of that set, or the start of MedMCQA's `cop` cannot be inferred.
    """
    rows = list(rows_of(path))
    note = None
    if name in _EVALUATION_FORM and _in_evaluation_form(rows, _EVALUATION_FORM[name][0]):
        reader = choices(_EVALUATION_FORM[name][1])
    elif name == "medmcqa":
        base, note = (medmcqa_cop, "as asked") if medmcqa_cop is not None else cop_base((r for _, r in rows), path)
        reader = medmcqa(base)
    else:
        reader = READERS[name](seed)
    reading = read_set(rows, reader)
    if note:
        reading.notes.append(note)
    if not reading.questions:
        examples = "; ".join(f"{row.where}: {row.detail}" for row in reading.dropped[:2]) or "it is empty"
        note_on_subjects = f"; {reading.other_subjects} rows are of other subjects" if reading.other_subjects else ""
        raise UserError(f"{path} holds no question of {name} that can be used ({examples}{note_on_subjects})")
    return reading
