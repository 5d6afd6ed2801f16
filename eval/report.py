"""Write a report about the result files of eval/infer.py: accuracy tables, heatmaps, comparisons, training curves.

    python eval/report.py OUT.jsonl... --output_dir DIR
    python eval/report.py NOTHINK.jsonl... --against THINK.jsonl... --output_dir DIR
    python eval/report.py STUDY/*.jsonl --overview --output_dir DIR

The report is DIR/report.html, a page that needs no network. Beside it are summary.md, tables.tex, the tables as CSV,
the heatmaps as PNG and SVG, and results.json, which holds every question and answer in the form that Med-R1 published.
The page itself shows questions, answers and images only with --with_items, because a page is easily passed on and these
may identify patients.

Runs. The manifest in a result file says which checkpoint answered which data set, and how. Files of one checkpoint with
the same settings are one run, with one heatmap of modality x task and its weighted and unweighted mean. runs.csv has a
row per run. Several runs: the tables of each are in DIR/<name of the run>. Exactly two runs without --against: the
report also compares them question by question (second minus first).

Comparisons. With --against, each run is compared with the run of the second list that answered the same questions and
has the same training data, or no training. The heatmaps then show differences: no-think minus think, GRPO minus SFT,
after minus before training. Without --against, runs are compared with that of --baseline, or else trained ones with the
untrained one. Runs to which something else was shown (--image none, --options shuffled) are compared with the ordinary
run of the same checkpoint.

Text questions are in one table with a row per checkpoint and a column per benchmark. --grader huatuo grades the stored
answers again by the more lenient rules of HuatuoGPT-o1's evaluation, to compare with published numbers; every title
says so, and the result files do not change.

Closed and open questions have their own tables. With --judge a model behind an OpenAI-compatible address (a vLLM server
next door) is asked about their answers too; its numbers are marked JUDGED and stand beside those of the rules.

--overview is for the many files of a study. It shows what was trained and tested, a heatmap of accuracy per mode, and
every comparison that the files allow (no-think minus think, GRPO minus zero-shot, GRPO minus SFT) with its statistical
tests. Instead of a section per file, the page lists the questions on which runs disagree.
"""

import gc
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.evaluation.reporting.report import GRADERS, IMAGE_BYTES, write_overview, write_report
from open_r1.grading.judge.judgements import judge_of


def main() -> int:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="OUT.jsonl", help="result files of eval/infer.py")
    add("--against", nargs="+", type=Path, default=[], metavar="OUT.jsonl", help="those to compare with: before, think")
    add("--baseline", type=Path, metavar="OUT.jsonl", help="the result file that all others are compared with")
    add("--output_dir", required=True, type=Path, help="folder that the report is written to")
    add("--with_items", action="store_true", help="put every question, answer and small image into the page")
    add("--image_root", type=Path, help="folder of the images, where the questions came from a JSON list")
    add("--images_mib", type=float, default=IMAGE_BYTES / 2**20, help="room for small images in the page (8)")
    add("--grader", choices=GRADERS, default="stored", help="huatuo: the published lenient matching, marked as such")
    add("--judge", nargs=2, metavar=("URL", "MODEL"), help="ask a model behind an OpenAI-compatible address as well")
    add("--judge_cache", type=Path, help="file of the judge's verdicts (default: below ~/.cache/open-r1-med)")
    add("--clusters", type=Path, help="file of eval/overlap.py: errors count clusters of nearly equal images")
    add("--overview", action="store_true", help="of a whole study: every comparison, no part for each file")
    flags = parser.parse_args()
    gc.disable()  # the process is short and keeps nearly all that it reads: looking for garbage is a tenth of its time
    choosing = flags.against or flags.baseline or flags.judge or flags.grader != "stored"
    if flags.overview and choosing:
        raise UserError(
            "--overview finds by itself what to compare; leave --against, --baseline, --grader and --judge out"
        )
    if flags.against and flags.baseline:
        raise UserError("--against and --baseline both say what to compare with; give one of the two")
    size = int(flags.images_mib * 2**20)
    if flags.overview:
        summary = write_overview(
            flags.results,
            flags.output_dir,
            flags.image_root,
            size,
            with_items=flags.with_items,
            clusters=flags.clusters,
        )
    else:
        judge = judge_of(flags.judge, flags.judge_cache) if flags.judge else None
        summary = write_report(
            flags.results,
            flags.output_dir,
            flags.against,
            flags.image_root,
            size,
            flags.grader,
            flags.with_items,
            judge,
            flags.baseline,
            flags.clusters,
        )
    print(summary)
    return 0


if __name__ == "__main__":
    run_command(main)
