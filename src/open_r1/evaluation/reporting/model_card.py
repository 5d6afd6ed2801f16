"""Accuracies for a model card, and the command that writes a card anew."""

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
from open_r1.evaluation.scoring.results import ResultFile, read_results
from open_r1.evaluation.scoring.tallies import ALL, tabulate


def accuracy_table(folder: str | os.PathLike, results: Sequence[str | os.PathLike]) -> str:
    """By test set and modality: n, accuracy with its standard error, the share of answers that could not be read.

    Args:
        folder: the checkpoint's.
        results: result files of eval/infer.py, all of this checkpoint.

    Returns:
        Markdown for the card; that nothing was measured where there are no files.

    Raises:
        UserError: a file that holds no results, or those of another checkpoint.
    """
    files = [read_results(path) for path in results]
    if not files:
        return NOT_MEASURED
    _refuse_others(Path(folder), files)
    rows = []
    for file in files:
        table = tabulate(file.results)
        names = sorted({row for row, column in table if column == ALL and row != ALL})
        for name in [*(names if len(names) > 1 else []), ALL]:
            tally = table[name, ALL]
            estimate = tally.estimate
            measured = ["", ""]
            if estimate is not None:
                interval = f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"
                measured = [with_error(estimate.mean, estimate.stderr), interval]
            beside = [percent(tally.chance, 1), percent(tally.unparsed, 1)]
            rows.append([_test_set(file), name, str(tally.n), *measured, *beside])
    head = ["test set", "part", "n", "accuracy, % ± standard error", "95 % interval", "chance", "unparsed"]
    return (
        markdown_table(head, rows) + "\nStandard errors are clustered by image. Every answer was read by one grader; "
        "what it could not read is counted as wrong.\n"
    )


def _test_set(file: ResultFile) -> str:
    manifest = file.manifest
    name = f"{Path(str(manifest.get('data'))).name} ({manifest.get('split')}, {manifest.get('mode')})"
    usual = {"image": "shown", "options": "as_given"}
    changed = [f"{key} {manifest[key]}" for key in usual if manifest.get(key, usual[key]) != usual[key]]
    unfinished = [f"{file.missing} questions not answered yet"] if file.missing else []
    return "; ".join([name, *changed, *unfinished])


def _refuse_others(folder: Path, files: Sequence[ResultFile]) -> None:
    own = fingerprint(folder)
    for file in files:
        if file.manifest.get("checkpoint_sha256") != own:
            raise UserError(
                f"{file.path} holds answers of {file.manifest.get('checkpoint')}, whose weights are not those of "
                f"{folder}; a card must show the accuracy of its own weights"
            )


def main() -> int:
    """`python eval/model_card.py`: the card of a folder anew, and publishing it.

    Raises:
        UserError: no checkpoint with run.json, or results of another one.
    """
    parser = CommandParser(description="A checkpoint's model card: written anew, with accuracies, and published.")
    parser.add_argument("folder", help="output folder of a training")
    parser.add_argument("--results", nargs="*", default=[], help="result files of eval/infer.py for this checkpoint")
    parser.add_argument("--push_to", metavar="ORG/REPO", help="publish weights and card")
    parser.add_argument("--private", action="store_true", help="make the repository private when it is created")
    options = parser.parse_args()
    story = run_record(Path(options.folder))
    if story is None:
        raise UserError(f"{options.folder} holds no run.json, so nobody knows what was trained; name an output folder")
    print(f"written: {write_card(options.folder, story, accuracy_table(options.folder, options.results))}")
    if options.push_to:
        repository = created_repository(options.push_to, None, options.private or None)
        print(f"published: {publish(options.folder, repository)}")
    return 0
