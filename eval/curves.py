"""Training curves of one or several runs, as an image or as a page with all numbers, alarms and groups.

python eval/curves.py output/Modality_CT --html run.html
python eval/curves.py output/Modality_CT output/Modality_MRI --output curves.png
"""

from pathlib import Path

from open_r1.common.atomic_files import write_atomically
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.drawing.rendering import rendered
from open_r1.drawing.training_curves import curves_figure
from open_r1.evaluation.reporting.trainings.page import training_page
from open_r1.evaluation.reporting.trainings.reading import read_logs

FORMS = ("png", "svg")


def main() -> int:
    parser = CommandParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folders of trainings")
    parser.add_argument("--output", type=Path, help="image to write, .png or .svg")
    parser.add_argument("--html", type=Path, help="page to write, .html; it needs no other file")
    flags = parser.parse_args()
    if flags.output is None and flags.html is None:
        raise UserError("nothing is to be written; give --html run.html, --output curves.png, or both")
    form = "" if flags.output is None else flags.output.suffix.removeprefix(".")
    if flags.output is not None and form not in FORMS:
        raise UserError(f"--output {flags.output} must end in .png or .svg, which selects the format")
    if flags.html is not None and flags.html.suffix != ".html":
        raise UserError(f"--html {flags.html} must end in .html, so that a browser opens it as a page")
    if flags.output is not None:
        figure = curves_figure(read_logs(flags.runs))
        if figure is None:
            raise UserError(f"the logs of {', '.join(map(str, flags.runs))} hold no curve; train with --logging_steps")
        write_atomically(flags.output, rendered(figure, form))
    if flags.html is not None:
        write_atomically(flags.html, training_page(flags.runs))
        print(f"wrote {flags.html} ({flags.html.stat().st_size / 2**20:.1f} MiB)")
    return 0


if __name__ == "__main__":
    run_command(main)
