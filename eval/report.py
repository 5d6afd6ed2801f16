"""Tables and pictures from result files: accuracy by modality, by task and by both, with n and standard error.

    python eval/report.py OUT.jsonl... --output_dir DIR

One file: the report is in DIR. Several: in DIR/<file name> each; with exactly two, DIR also holds the difference
second minus first, question by question.
"""

import argparse
from pathlib import Path

from open_r1.errors import run_command
from open_r1.evaluation.report import write_report


def main() -> int:
    parser = argparse.ArgumentParser(description="Tables and heatmaps from result files of eval/infer.py.")
    parser.add_argument("results", nargs="+", type=Path, metavar="OUT.jsonl", help="result files of eval/infer.py")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder that the report is written to")
    arguments = parser.parse_args()
    print(write_report(arguments.results, arguments.output_dir))
    return 0


if __name__ == "__main__":
    run_command(main)
