"""What can be answered without images: blind floor, uniform guessing, images shared with training.

    python eval/blind.py --train Fundus_train.json --test Fundus_test.json
    python eval/blind.py --data data/VQA/CT_384

The blind floor is the accuracy of choosing the option whose text was right in the largest share of the training
questions that offered it, without image and question. Judge an accuracy by its distance to this floor.
"""

from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.evaluation.scoring.blind_floor import measure, read_list, read_prepared


def main() -> int:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--train", type=Path, help="JSON list of {image, problem, solution}, the training questions")
    parser.add_argument("--test", type=Path, help="JSON list of the test questions")
    parser.add_argument("--data", type=Path, help="prepared folder with both, instead of the two lists")
    flags = parser.parse_args()
    if flags.data is not None and not (flags.train or flags.test):
        train, test = read_prepared(flags.data)
    elif flags.train is not None and flags.test is not None and flags.data is None:
        train, test = read_list(flags.train), read_list(flags.test)
    else:
        raise UserError("give either --train and --test, two JSON lists, or --data, a prepared folder")
    for name, side in (("train", train), ("test", test)):
        if side.dropped:
            print(f"{side.dropped:,} rows of {name} cannot be used and are not counted")
    print("\n".join(measure(train, test).lines()))
    return 0


if __name__ == "__main__":
    run_command(main)
