"""What can be answered without images: blind floor, uniform guessing, images shared with training.

    python eval/blind.py --train Fundus_train.json --test Fundus_test.json
    python eval/blind.py --data data/VQA/CT_384

The blind floor is the accuracy of choosing the option whose text was right in the largest share of the training
questions that offered it, without image and question; questions without options are answered with the most frequent
answer of their kind. Judge an accuracy by its distance to this floor.
"""

from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.evaluation.scoring.blind_floor import Side, measure, read_file, read_set
from open_r1.vocabulary.column_names import ColumnNames, parse_columns

LISTS = (".json", ".jsonl")


def main() -> int:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--train", type=Path, help="the training questions: a JSON list, or any other form that training takes")
    add("--test", type=Path, help="the test questions")
    add("--data", type=Path, help="a set with both, instead of --train and --test")
    add("--train_split", default="train", help="name of the training split (default: %(default)s)")
    add("--test_split", default="test", help="name of the test split (default: %(default)s)")
    add("--image_root", type=Path, help="folder of the images that rows of Parquet files name; lists need none")
    add("--columns", help="other names of columns: problem=question,solution=answer")
    flags = parser.parse_args()
    paths = [flags.train, flags.test] if flags.data is None else [flags.data, flags.data]
    if None in paths or (flags.data is not None and (flags.train or flags.test)):
        raise UserError("give either --train and --test, two sets of questions, or --data, a set with both")
    names, splits = parse_columns(flags.columns), (flags.train_split, flags.test_split)
    train, test = (_side(path, split, flags.image_root, names) for path, split in zip(paths, splits, strict=True))
    for name, side in (("train", train), ("test", test)):
        if side.dropped:
            print(f"{side.dropped:,} rows of {name} cannot be used and are not counted")
    print("\n".join(measure(train, test).lines()))
    return 0


def _side(path: Path, split: str, image_root: Path | None, names: ColumnNames) -> Side:
    """One side; the images of a list are not looked for."""
    return read_file(path, names) if path.suffix in LISTS else read_set(path, split, image_root, names)


if __name__ == "__main__":
    run_command(main)
