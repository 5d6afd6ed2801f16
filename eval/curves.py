"""Training curves of one or several runs, overlaid: rewards, completion length, KL, entropy, gradient norm.

python eval/curves.py output/Modality_CT output/Modality_MRI --output curves.png
"""

from pathlib import Path

from open_r1.common.atomic_files import write_atomically
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.evaluation.reporting.curves import curves_figure, read_logs
from open_r1.evaluation.reporting.heatmaps import rendered

FORMS = ("png", "svg")


def main() -> int:
    parser = CommandParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folders of trainings")
    parser.add_argument("--output", required=True, type=Path, help="image to write, .png or .svg")
    flags = parser.parse_args()
    form = flags.output.suffix.removeprefix(".")
    if form not in FORMS:
        raise UserError(f"--output {flags.output} must end in .png or .svg, which selects the format")
    figure = curves_figure(read_logs(flags.runs))
    if figure is None:
        raise UserError(f"the logs of {', '.join(map(str, flags.runs))} hold no curve; train with --logging_steps")
    write_atomically(flags.output, rendered(figure, form))
    return 0


if __name__ == "__main__":
    run_command(main)
