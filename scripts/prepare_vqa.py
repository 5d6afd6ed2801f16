"""Prepare a medical VQA set for training and evaluation.

python scripts/prepare_vqa.py vqa_rad --input VQA-RAD --output_dir data/VQA
python scripts/prepare_vqa.py slake --input Slake1.0 --only en zh --against data/VQA/vqa_rad

--input is the folder as it was downloaded, or its files. Which published form they have is found out from their rows,
and a file of another set is refused by name. Every set gets a folder of its own below --output_dir, which
--dataset_name and --prompt_path take.
"""

# Heavy imports stand in functions: every worker process loads this file again.

import os
import sys
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command

_OF_ITS_OWN = {"omnimedvqa": "python scripts/prepare_omnimedvqa.py --release OmniMedVQA --output_dir data/VQA"}


def parser() -> CommandParser:
    """The command's flags."""
    from open_r1.data.vqa.registry import SOURCES

    p = CommandParser(description=__doc__)
    add = p.add_argument
    add("source", metavar="SOURCE", help=f"the set: {', '.join(SOURCES)}")
    add("--input", nargs="+", default=[], metavar="PATH", help="a folder, or files, each perhaps as test=FILE")
    add("--image_root", type=Path, help="folder that image names start from (default: the input folder)")
    add("--output_dir", type=Path, default=Path("data/VQA"), help="default: %(default)s")
    add(
        "--only", nargs="+", default=[], metavar="PART", help="parts of the set: a language, a data set in a collection"
    )
    add(
        "--closed",
        choices=["marked", "yes_no"],
        default="marked",
        help="what is closed: what the set marks so, where it marks anything, or a yes or no (default: %(default)s)",
    )
    add("--max_side", type=int, default=768, help="pixels of the longer side at most (default: %(default)s)")
    add(
        "--format",
        choices=["PNG", "JPEG"],
        default="PNG",
        help="PNG keeps every pixel, JPEG takes a quarter of the room",
    )
    add("--num_workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    add("--against", nargs="+", type=Path, default=[], metavar="DIR", help="prepared sets to look for shared images in")
    add("--limit", type=int, help="questions of each split, for a trial")
    add("--drop_repeats", action="store_true", help="leave out questions that repeat one with its images and answer")
    add("--drop_leaks", action="store_true", help="train on no image of a later split, or of the tests of --against")
    add("--overwrite", action="store_true", help="build a complete set anew")
    add("--strict", action="store_true", help="exit with status 1 if a question was dropped")
    return p


def main() -> int:
    """Prepare, print the report; 0 if all is well, 1 with --strict if a question was dropped."""
    args = parser().parse_args()
    if args.source.casefold() in _OF_ITS_OWN:
        raise UserError(f"{args.source} has a command of its own: {_OF_ITS_OWN[args.source.casefold()]}")
    from open_r1.data.preparation.encoded_images import BoundedEncoding
    from open_r1.data.vqa.prepare import VqaPreparation, prepare
    from open_r1.data.vqa.report import report_lines

    try:
        prepared = prepare(
            VqaPreparation(
                args.source,
                tuple(args.input),
                args.output_dir,
                args.image_root,
                tuple(args.only),
                args.closed,
                BoundedEncoding(args.max_side, args.format),
                args.num_workers,
                args.limit,
                args.drop_repeats,
                args.drop_leaks,
                args.overwrite,
                tuple(args.against),
            )
        )
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    print("\n".join(report_lines(prepared)))
    return int(args.strict and any(data_set.report["dropped"] for data_set in prepared))


if __name__ == "__main__":
    run_command(main)
