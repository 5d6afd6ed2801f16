"""Which letters are chosen and which are right: a model that likes a position gains or loses by where answers stand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.heatmaps import STAR
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, points, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Difference, Estimate, accuracy, difference
from open_r1.grading.problems import options_in, solution_letter

COLUMNS = (
    *("run", "letter", "n", "right", "chosen", "right_share", "chosen_share", "difference", "stderr", "low", "high"),
    *("p", "excludes_zero", "n_right", "accuracy_where_right", "accuracy_stderr", "accuracy_low", "accuracy_high"),
)


@dataclass(frozen=True)
class Position:
    """One letter in the answers of a run, over the questions that offer it."""

    letter: str
    right: int
    chosen: int
    difference: Difference  # chosen minus right, over the questions
    accuracy: Estimate | None  # where this letter is the right one


_options = lru_cache(maxsize=1 << 15)(options_in)  # every run has the same questions; nobody changes the mappings


def shown_letters(result: Result) -> tuple[list[str], str, str | None] | None:
    """The letters that were offered, the right one and the chosen one, as they stood before the model.

    None where the right option cannot be told from the others by its text.
    """
    options, right = _options(result.problem), solution_letter(result.solution)
    if result.asked is None:
        return [*options], right, result.letter
    try:
        shown = _options(result.asked)
    except UserError:
        return None
    places = {text: letter for letter, text in shown.items()}
    if len(places) < len(shown) or set(places) != set(options.values()) or right not in options:
        return None  # two options of the same text, or numbers of images in them, which were changed too
    chosen = result.letter and places.get(options.get(result.letter, ""))
    return [*shown], places[options[right]], chosen


def positions(results: Sequence[Result]) -> list[Position]:
    """Every letter that is offered in at least one of these questions, in order."""
    triples = [(result, shown) for result in results if result.outcome is not None and (shown := shown_letters(result))]
    letters = sorted({letter for _, (offered, _, _) in triples for letter in offered})
    measured = []
    for letter in letters:
        here = [(result, right, chosen) for result, (offered, right, chosen) in triples if letter in offered]
        rights = [right == letter for _, right, _ in here]
        choices = [chosen == letter for _, _, chosen in here]
        images = [result.image for result, _, _ in here]
        where_right = [result for result, right, _ in here if right == letter]
        measured.append(
            Position(
                letter,
                sum(rights),
                sum(choices),
                difference(rights, choices, images),
                accuracy([result.correct for result in where_right], [result.image for result in where_right])
                if where_right
                else None,
            )
        )
    return measured


def letters_section(scored: Sequence[Scored]) -> Section:
    """A row per run and a column per letter: how much more often it is chosen than right, and accuracy where it is."""
    of_runs = {run.name: positions(run.file.results) for run in scored}
    letters = sorted({position.letter for measured in of_runs.values() for position in measured})
    marks = all_marks(scored)
    section = Section(marked("Position of the answers", marks))
    section.sheets = [
        Sheet(
            marked("How much more often chosen than right, in points", marks),
            ["run", "n", *letters],
            [*_rows(of_runs, letters, _bias)],
            [
                "Over the questions that offer the letter, as it stood before the model. Without a preference for a "
                f"position all are zero, up to answers that could not be read. {STAR} The 95 % interval excludes zero."
            ],
        ),
        Sheet(
            marked("Accuracy by the position of the right answer", marks),
            ["run", "n", *letters],
            [*_rows(of_runs, letters, _accuracy)],
            ["In brackets: questions whose right answer stands there."],
        ),
    ]
    rows = [_csv_row(name, position) for name, measured in of_runs.items() for position in measured]
    section.files["letters.csv"] = csv_text(COLUMNS, rows)
    return section


def _rows(of_runs: dict[str, list[Position]], letters: Sequence[str], text) -> Iterator[list[str]]:
    for name, measured in of_runs.items():
        by_letter = {position.letter: text(position) for position in measured}
        count = max((position.difference.n for position in measured), default=0)
        yield [name, f"{count:,}", *(by_letter.get(letter, BLANK) for letter in letters)]


def _bias(position: Position) -> str:
    change = position.difference
    return points(change.mean, change.stderr) + f" {STAR}" * change.excludes_zero


def _accuracy(position: Position) -> str:
    estimate = position.accuracy
    return BLANK if estimate is None else f"{with_error(estimate.mean, estimate.stderr)} ({estimate.n:,})"


def _csv_row(name: str, position: Position) -> list[str]:
    change, estimate = position.difference, position.accuracy
    values = [name, position.letter, str(change.n), str(position.right), str(position.chosen)]
    values += map(percent, (position.right / change.n, position.chosen / change.n))
    values += map(percent, (change.mean, change.stderr, change.low, change.high))
    values += ["" if change.too_few else f"{change.p:.3g}", "yes" if change.excludes_zero else "no"]
    if estimate is None:
        return [*values, "0", "", "", "", ""]
    return [*values, str(estimate.n), *map(percent, (estimate.mean, estimate.stderr, estimate.low, estimate.high))]
