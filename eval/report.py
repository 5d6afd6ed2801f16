"""A report of result files: tables, heatmaps, training curves, and on demand a page with every question and answer.

    python eval/report.py OUT.jsonl... --output_dir DIR
    python eval/report.py NOTHINK.jsonl... --against THINK.jsonl... --output_dir DIR

DIR/report.html shows everything and needs no network; summary.md, tables.tex, CSV files and the heatmaps as PNG and SVG
lie beside it. Questions, answers and images stand in the page only with --with_items, because a page is passed on and
they may tell of patients; DIR/results.json, the published form, holds questions and answers.

Files belong together by what their manifests say. Those of one checkpoint over several sets, asked in the same way, are
one run: one map of modality x task, with weighted and unweighted means. The first table (runs.csv) has a row for each
run, and those on the same questions stand together. One run: all in DIR itself. Several: what belongs to one of them in
DIR/<its name>. Exactly two without --against: DIR also holds the difference second minus first, question by question.

Several runs give maps of accuracy by what was trained on and tested on. With --against each run is compared with that
of the second list that has the same questions and was trained on the same, or not trained at all, and the maps show the
differences: no-think minus think, GRPO minus SFT, after minus before. Without it, trained runs are compared with the
untrained one among them. A run whose questions came without their images stands beside the run with them.

Text questions stand in one table, a row per checkpoint and a column per benchmark, whether the benchmarks of a
checkpoint are in one file or in several. --grader huatuo matches the stored answers anew as HuatuoGPT-o1's evaluation
does, for comparison with old numbers; every title says so, and the result files stay as they are.

--overview is for the many files of a study: one table of what was trained and tested on the same, a map of accuracy per
mode, and every comparison that they offer (no-think minus think, GRPO minus zero-shot, GRPO minus SFT), each with its
tests; no part for each file, and the page shows the questions that runs disagree about.
"""

from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.evaluation.reporting.report import GRADERS, IMAGE_BYTES, write_overview, write_report


def main() -> int:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="OUT.jsonl", help="result files of eval/infer.py")
    add("--against", nargs="+", type=Path, default=[], metavar="OUT.jsonl", help="those to compare with: before, think")
    add("--output_dir", required=True, type=Path, help="folder that the report is written to")
    add("--with_items", action="store_true", help="put every question, answer and small image into the page")
    add("--image_root", type=Path, help="folder of the images, where the questions came from a JSON list")
    add("--images_mib", type=float, default=IMAGE_BYTES / 2**20, help="room for small images in the page (8)")
    add("--grader", choices=GRADERS, default="stored", help="huatuo: the published lenient matching, marked as such")
    add("--overview", action="store_true", help="of a whole study: every comparison, no part for each file")
    flags = parser.parse_args()
    if flags.overview and (flags.against or flags.grader != "stored"):
        raise UserError("--overview finds by itself what to compare; leave --against and --grader out")
    size = int(flags.images_mib * 2**20)
    if flags.overview:
        summary = write_overview(flags.results, flags.output_dir, flags.image_root, size, with_items=flags.with_items)
    else:
        summary = write_report(
            flags.results, flags.output_dir, flags.against, flags.image_root, size, flags.grader, flags.with_items
        )
    print(summary)
    return 0


if __name__ == "__main__":
    run_command(main)
