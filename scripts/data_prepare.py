"""Build open-medical-r1's training sets from MedQA and MedXpertQA.

python scripts/data_prepare.py --medxpertqa_root DIR --medqa_usmle_root DIR --output_dir data/xpert_usmle

Data set 1 is 1,090 MedQA questions, 2 is 600 of them and a fifth of MedXpertQA, 3 is that fifth alone. Without
--dataset: 1,090 MedQA questions, and that fifth where --medxpertqa_root is given. The rest of MedXpertQA is the
test set.
"""

from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.data.text.prepare import Mixture, mix, report_lines


def main() -> None:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--medxpertqa_root", type=Path, help="holds Text/test.jsonl")
    add("--medqa_usmle_root", type=Path, help="holds train.jsonl")
    add("--output_dir", type=Path, default=Path("data/xpert_usmle"), help="default: %(default)s")
    add("--dataset", type=int, help="1, 2 or 3: one of the published mixtures")
    add("--usmle_nums", type=int, help="MedQA questions to train on (1090; 600 in data set 2)")
    add("--xpert_test_size", type=float, default=0.8, help="share of MedXpertQA to test on (default: %(default)s)")
    add("--seed", type=int, default=42, help="of the draw (default: %(default)s)")
    settings = vars(parser.parse_args())
    output_dir = settings.pop("output_dir")
    print("\n".join(report_lines(output_dir, mix(Mixture(**settings), output_dir))))


if __name__ == "__main__":
    run_command(main)
