"""Build data/VQA from OmniMedVQA: `python scripts/prepare_omnimedvqa.py --release DIR --num_workers 8`.

Heavy imports stand in `main`: every worker process loads this file again.
"""

import os
import sys
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command


def parser() -> CommandParser:
    """The command's flags."""
    p = CommandParser(description="OmniMedVQA's questions and images -> data sets for training")
    p.add_argument("--release", type=Path, help="unpacked OmniMedVQA: holds Images and QA_information")
    p.add_argument("--splits_dir", type=Path, help="Med-R1's split files: holds modality and question_type")
    p.add_argument("--image_root", type=Path, help="holds Images (default: the release)")
    p.add_argument("--output_dir", type=Path, default=Path("data/VQA"), help="default: %(default)s")
    p.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="modalities or tasks, e.g. CT 'Lesion Grading'"
    )
    p.add_argument("--by", default="modality,task", help="which families of sets (default: %(default)s)")
    p.add_argument(
        "--split",
        choices=["published", "random", "image_disjoint"],
        help="default: published where there is one, else random",
    )
    p.add_argument("--seed", type=int, default=42, help="of the drawn splits (default: %(default)s)")
    p.add_argument("--size", type=int, default=384, help="side in pixels (default: %(default)s)")
    p.add_argument(
        "--format",
        choices=["PNG", "JPEG"],
        default="PNG",
        help="PNG keeps every pixel, JPEG takes a quarter of the room",
    )
    p.add_argument("--num_workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    p.add_argument("--allow_missing_side", action="store_true", help="build sets that have only train or only test")
    p.add_argument("--strict", action="store_true", help="exit with status 1 if a question was dropped")
    return p


def main() -> int:
    """Prepare, print the report; 0 if all is well, 1 with --strict if a question was dropped."""
    args = parser().parse_args()
    from open_r1.common.errors import UserError
    from open_r1.data.omnimedvqa.prepare import Preparation, prepare
    from open_r1.data.omnimedvqa.summary import report_lines
    from open_r1.data.preparation.encoded_images import Encoding
    from open_r1.vocabulary.labels import parse_label

    by = tuple(dict.fromkeys(args.by.split(",")))
    if not set(by) <= {"modality", "task"}:
        raise UserError(f"--by {args.by} is not valid; choose modality, task or modality,task")
    only = tuple(parse_label(name, by[0] if len(by) == 1 else None) for name in args.only)
    settings = {name: value for name, value in vars(args).items() if name in Preparation.__dataclass_fields__}
    encoding = Encoding(args.size, args.format)
    try:
        outcome = prepare(Preparation(**{**settings, "by": by, "only": only, "encoding": encoding}))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    print("\n".join(report_lines(outcome)))
    return int(args.strict and bool(outcome.dropped))


if __name__ == "__main__":
    run_command(main)
