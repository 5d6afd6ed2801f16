"""Questions are put to a model batch by batch, and its completions are graded; the result lines come out.

The same questions may be asked in several views at once (as usual, and with the options in another order): views that
show the same images share a batch, in which each image is opened and encoded once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from open_r1.data.row_images import image_key, key_of
from open_r1.evaluation.answering.backends.generator import Completion
from open_r1.evaluation.answering.backends.letter_probs import offered_probabilities
from open_r1.evaluation.answering.batches import batches_by_length, prefetch
from open_r1.evaluation.answering.encoder import Encoded, Encoder, Row
from open_r1.evaluation.answering.perturbations import ShownProblem, View
from open_r1.evaluation.scoring.results import Result, Sample, failed_result, voted_result
from open_r1.evaluation.scoring.train_overlap import TrainingSet
from open_r1.grading.answer_places import letter_place
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.answer_types import AnswerType

Answer = Callable[[Encoded], list[list[Completion]]]
"""A backend: the completions of each prompt of a batch."""


def answer_rows(
    answer: Answer, encoder: Encoder, rows: Any, batch_size: int, training: TrainingSet | None = None
) -> Iterator[list[Result]]:
    """Yield the results of a data set batch by batch; a row whose image does not open gets an error."""
    batches = question_batches(rows, batch_size)
    for results in answer_views(answer, encoder, rows, [encoder.view] * len(rows), batches, training):
        yield [result for _, result in results]


def question_batches(rows: Any, batch_size: int) -> list[list[int]]:
    """Indices of rows in batches, the longest problems first; questions about the same images stay together."""
    return batches_by_length([len(problem) for problem in rows["problem"]], batch_size, image_ids(rows))


def answer_views(
    answer: Answer,
    encoder: Encoder,
    rows: Any,
    views: Sequence[View],
    batches: Iterable[list[int]],
    training: TrainingSet | None = None,
    encoded_ahead: int = 2,
) -> Iterator[list[tuple[int, Result]]]:
    """Yield (index in `rows`, result) batch by batch.

    Args:
        answer: the backend.
        encoder: makes prompts of rows.
        rows: what is asked; a question may be in it once for each view.
        views: how each of them is shown.
        batches: indices of the rows that are asked together.
        training: for the blind floor and for images seen in training.
        encoded_ahead: batches that are encoded while one is answered.
    """

    def encode(indices: list[int]) -> tuple[list[int], Encoded]:
        return indices, encoder(list(rows.select(indices)), [views[index] for index in indices])

    for indices, encoded in prefetch(encode, batches, encoded_ahead):
        groups = answer(encoded) if encoded.rows else []
        results, places = [], [indices[place] for place in encoded.places]
        for place, row, problem, completions in zip(places, encoded.rows, encoded.problems, groups, strict=True):
            content = encoder.content(row, views[place])
            results.append((place, _grade_row(row, problem, completions, training, content)))
        unanswered = [place for place in indices if place not in set(places)]
        for place, (row, reason) in zip(unanswered, encoded.failed, strict=True):
            results.append((place, failed_result(row, cluster(row), reason)))
        yield results


def image_ids(rows: Any) -> list[str]:
    """For each row an identifier of its images, with which questions about the same images are put into one batch.

    The stored paths, which cost nothing to read; without a path, a hash of the image's bytes.
    """
    identifiers = []
    for batch in rows.select_columns(["images", "id"]).iter(batch_size=64):
        for images, name in zip(batch["images"], batch["id"], strict=True):
            identifiers.append("\n".join(image["path"] or key_of(image) for image in images) or name)
    return identifiers


def cluster(row: Row) -> str:
    """The cluster of a question for standard errors: its images; a question without images is a cluster by itself."""
    return image_key(row)


def _grade_row(
    row: Row, shown_problem: ShownProblem, completions: Sequence[Completion], training: TrainingSet | None, content: str
) -> Result:
    """Grade completions of the problem as it was shown; the result has the letters of the row's own problem."""
    expected, samples, letter_probs = _expected(row, shown_problem), [], None
    for completion in completions:
        outcome, answer = grade_answer(completion.text, expected)
        if expected.answer_type is AnswerType.CHOICE:
            if completion.letters is not None and answer is not None:
                place = letter_place(completion.text, answer)
                letter_probs = offered_probabilities(completion.letters, place, shown_problem.letters)
            answer = shown_problem.original_letter(answer)
        samples.append(Sample(completion.text, outcome, answer, completion.tokens))
    return voted_result(
        row,
        cluster(row),
        samples,
        blind=training and training.guess_points(row),
        seen=training and training.has_image_of(row),
        asked=None if shown_problem.problem == row["problem"] else shown_problem.problem,
        cut_off=sum(completion.cut_off for completion in completions),
        content=content,
        letter_probs=letter_probs,
    )


def _expected(row: Row, shown_problem: ShownProblem) -> Expected:
    """What the row expects, for a question of choice in the letters that the model saw."""
    expected = Expected.of(row)
    if expected.answer_type is not AnswerType.CHOICE:
        return expected
    letter = shown_problem.shown_letter(solution_letter(row["solution"]))
    return Expected(AnswerType.CHOICE, letter, options_in(shown_problem.problem), question=shown_problem.problem)
