"""Turn the files of the text benchmarks into test folders for eval/infer.py --prompt_path.

python scripts/prepare_text_benchmarks.py --medqa test.jsonl --medmcqa dev.json --output_dir data/text

Every flag names one file as published: JSON lines, JSON, Parquet or CSV; MedQA, MedMCQA, PubMedQA and MMLU-medical also
in the form of MedXpertQA's evaluation. HuatuoGPT-o1's evaluation file becomes one folder per source in it. A file that
cannot be used keeps no other from being prepared; the exit status is 2 then.
"""

import sys
from pathlib import Path

from open_r1.common.atomic_files import DiskError
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.data.text.prepare import Benchmark, prepare_benchmark, report_lines
from open_r1.data.text.sources import SETS


def main() -> int:
    parser = CommandParser(description=__doc__)
    for name in SETS:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    parser.add_argument("--output_dir", type=Path, default=Path("data/text"), help="default: %(default)s")
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", help="what the files are for (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=42, help="of GPQA's order of options (default: %(default)s)")
    parser.add_argument(
        "--medmcqa_cop", type=int, choices=(0, 1), help="from where MedMCQA's cop counts, if it cannot be found out"
    )
    flags = parser.parse_args()
    files = {name: path for name in SETS if (path := getattr(flags, name)) is not None}
    if not files:
        raise UserError(f"no file is named: give at least one of {', '.join(f'--{name}' for name in SETS)}")
    failed = 0
    for name, path in files.items():
        benchmark = Benchmark(name, path, flags.split, flags.seed, flags.medmcqa_cop)
        try:
            for folder, manifest in prepare_benchmark(benchmark, flags.output_dir):
                print("\n".join(report_lines(folder, manifest)))
        except DiskError:
            raise
        except UserError as error:  # the other files are none the worse for it
            print(f"error: --{name}: {error}", file=sys.stderr)
            failed += 1
    if failed and len(files) > 1:
        print(f"{len(files) - failed} of {len(files)} files were prepared", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    run_command(main)
