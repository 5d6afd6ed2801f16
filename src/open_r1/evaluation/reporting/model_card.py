"""The accuracies in a model card, and the command that writes a card again."""

import os
from collections.abc import Sequence
from pathlib import Path

from open_r1.checkpoints.folder import fingerprint, run_record
from open_r1.checkpoints.model_card import NOT_MEASURED, write_card
from open_r1.checkpoints.publishing import created_repository, publish
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError
from open_r1.common.markdown_text import markdown_table
from open_r1.evaluation.reporting.table_formats import percent, with_error
from open_r1.evaluation.scoring.free_answers import FreeTally
from open_r1.evaluation.scoring.results import ResultFile, read_results
from open_r1.evaluation.scoring.tallies import ALL, tabulate
from open_r1.vocabulary.answer_types import AnswerType


def accuracy_table(folder: str | os.PathLike, results: Sequence[str | os.PathLike]) -> str:
    """By test set and modality: n, accuracy with its standard error, and the share of unparsed answers.

    Args:
        folder: of the checkpoint.
        results: result files of eval/infer.py, all of this checkpoint.

    Returns:
        Markdown for the card; NOT_MEASURED without files.

    Raises:
        UserError: a file holds no results, or results of another checkpoint.
    """
    files = [read_results(path).apart() for path in results]
    if not files:
        return NOT_MEASURED
    _refuse_others(Path(folder), files)
    rows = []
    for file in files:
        if not file.results and file.free:
            continue
        table = tabulate(file.results)
        names = sorted({row for row, column in table if column == ALL and row != ALL})
        for name in [*(names if len(names) > 1 else []), ALL]:
            tally = table[name, ALL]
            estimate = tally.estimate
            measured = ["", ""]
            if estimate is not None:
                interval = f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"
                measured = [with_error(estimate.mean, estimate.stderr), interval]
            shares = [percent(tally.chance, 1), percent(tally.unparsed, 1)]
            rows.append([_test_set(file), name, str(tally.n), *measured, *shares])
    head = ["test set", "part", "n", "accuracy, % ± standard error", "95 % interval", "chance", "unparsed"]
    tables = [markdown_table(head, rows)] if rows else []
    free_rows = [row for file in files for row in _free_rows(file)]
    if free_rows:
        head = ["test set", "questions", "n", "right, % ± standard error", "95 % interval", "token F1", "unparsed"]
        tables.append(markdown_table(head, free_rows))
    return (
        "\n".join(tables) + "\nStandard errors are clustered by image. One grader read all answers; those it could "
        "not read count as wrong.\n"
    )


def _free_rows(file: ResultFile) -> list[list[str]]:
    """A row each for the closed and the open questions of a file."""
    rows = []
    for answer_type in (AnswerType.CLOSED, AnswerType.OPEN):
        tally = FreeTally([result for result in file.free if result.answer_type is answer_type])
        if tally.estimate is None:
            continue
        estimate, f1 = tally.estimate, tally.scores["token F1"]
        interval = f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"
        measured = [with_error(estimate.mean, estimate.stderr), interval]
        measured.append(with_error(*f1) if answer_type is AnswerType.OPEN else "")
        rows.append([_test_set(file), answer_type, str(tally.n), *measured, percent(tally.unparsed, 1)])
    return rows


def _test_set(file: ResultFile) -> str:
    manifest = file.manifest
    name = f"{Path(str(manifest.get('data'))).name} ({manifest.get('split')}, {manifest.get('mode')})"
    usual = {"image": "shown", "options": "as_given"}
    changed = [f"{key} {manifest[key]}" for key in usual if manifest.get(key, usual[key]) != usual[key]]
    unfinished = [f"{file.missing} questions not answered yet"] if file.missing else []
    return "; ".join([name, *changed, *unfinished])


def _refuse_others(folder: Path, files: Sequence[ResultFile]) -> None:
    weights_hash = fingerprint(folder)
    for file in files:
        if file.manifest.get("checkpoint_sha256") != weights_hash:
            raise UserError(
                f"{file.path} holds answers of {file.manifest.get('checkpoint')}, whose weights are not those of "
                f"{folder}; a card shows the accuracy of its checkpoint alone, so evaluate {folder} itself"
            )


def main() -> int:
    """`python eval/model_card.py`: write the card of a folder again, and publish it.

    Raises:
        UserError: the folder has no run record, or the results are of another checkpoint.
    """
    parser = CommandParser(description="Write a checkpoint's model card again, with accuracies, and publish it.")
    parser.add_argument("folder", help="output folder of a training")
    parser.add_argument("--results", nargs="*", default=[], help="result files of eval/infer.py for this checkpoint")
    parser.add_argument("--push_to", metavar="ORG/REPO", help="publish weights and card")
    parser.add_argument("--private", action="store_true", help="make the repository private when it is created")
    options = parser.parse_args()
    record = run_record(Path(options.folder))
    if record is None:
        raise UserError(f"{options.folder} holds no run.json; name the output folder of a training")
    print(f"written: {write_card(options.folder, record, accuracy_table(options.folder, options.results))}")
    if options.push_to:
        repository = created_repository(options.push_to, None, options.private or None)
        print(f"published: {publish(options.folder, repository)}")
    return 0
