"""How far two runs agree: both right, one, none, and Cohen's kappa."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from open_r1.evaluation.comparing.pairs import Pairs, matched
from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.sections.headline import by_questions
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent
from open_r1.evaluation.scoring.statistics import clustered_stderr, kappa
from open_r1.evaluation.scoring.tallies import ALL

MOST_RUNS = 6  # of which every two are compared
COLUMNS = (
    *("first", "second", "n", "pictures", "both_right", "only_first", "only_second", "none_right"),
    *("both_right_share", "both_right_stderr", "same_option", "same_option_stderr", "kappa", "kappa_stderr"),
)


@dataclass(frozen=True)
class Agreement:
    """The answers of two runs to the same questions."""

    first: str
    second: str
    pairs: Pairs

    @property
    def images(self) -> list[str]:
        return [result.image for _, result in self.pairs]

    @property
    def outcomes(self) -> list[tuple[bool, bool]]:
        """Whether the first and the second run is right, by question."""
        return [(before.correct, after.correct) for before, after in self.pairs]

    @property
    def same_options(self) -> list[bool]:
        """Whether both chose the same option, by question."""
        return [before.letter is not None and before.letter == after.letter for before, after in self.pairs]

    @property
    def kappa(self) -> tuple[float, float | None] | None:
        """Cohen's kappa of being right, with its standard error."""
        first, second = zip(*self.outcomes, strict=True)
        return kappa(first, second, self.images)


def agreements(scored: Sequence[Scored]) -> Iterator[Agreement]:
    """Every two of the most accurate MOST_RUNS runs on the same questions."""
    for runs in by_questions(scored):
        for first, second in combinations(runs[:MOST_RUNS], 2):
            shared = {result.id for result in first.file.results} & {result.id for result in second.file.results}
            if shared and (pairs := matched(first.file.results, second.file.results).get((ALL, ALL))):
                yield Agreement(first.name, second.name, pairs)


def agreement_section(scored: Sequence[Scored]) -> Section | None:
    """A row for every two runs on the same questions; None without two."""
    measured = [*agreements(scored)]
    if not measured:
        return None
    marks = all_marks(scored)
    section = Section(marked("Agreement of two runs", marks))
    head = ["runs", "n", "both right", "only the first", "only the second", "neither", "same option", "kappa"]
    rows = []
    for pair in measured:
        shares = [pair.outcomes.count(kind) / len(pair.pairs) for kind in _KINDS]
        same, error = _share(pair.same_options, pair.images)
        options = percent(same, 1) + (f" ± {percent(error, 1)}" if error else "")
        rows.append([f"{pair.first} and {pair.second}", f"{len(pair.pairs):,}", *(percent(s, 1) for s in shares)])
        rows[-1] += [options, _kappa_text(pair.kappa)]
    note = (
        "In per cent of the questions that both answered. Kappa is Cohen's, of right and not right: 1 is full "
        "agreement and 0 what two runs of these accuracies reach by chance. Errors are clustered by image."
    )
    section.sheets = [Sheet(marked("Right and wrong together", marks), head, rows, [note])]
    section.files["agreement.csv"] = csv_text(COLUMNS, [_csv_row(pair) for pair in measured])
    return section


_KINDS = ((True, True), (True, False), (False, True), (False, False))


def _share(values: Sequence[bool], images: Sequence[str]) -> tuple[float, float | None]:
    return sum(values) / len(values), clustered_stderr([float(value) for value in values], images)


def _kappa_text(measured: tuple[float, float | None] | None) -> str:
    if measured is None:
        return BLANK
    return f"{measured[0]:.3f}" + ("" if measured[1] is None else f" ± {measured[1]:.3f}")


def _csv_row(pair: Agreement) -> list[str]:
    counts = [str(pair.outcomes.count(kind)) for kind in _KINDS]
    both = _share([outcome == (True, True) for outcome in pair.outcomes], pair.images)
    values = [pair.first, pair.second, str(len(pair.pairs)), str(len(set(pair.images))), *counts]
    values += map(percent, (*both, *_share(pair.same_options, pair.images)))
    return values + ["" if number is None else f"{number:.4f}" for number in pair.kappa or (None, None)]
