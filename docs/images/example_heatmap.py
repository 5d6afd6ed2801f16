"""Draw docs/images/example_heatmap.png from made-up result lines, with the code that draws every report.

python docs/images/example_heatmap.py
"""

import random
import sys
from pathlib import Path

from open_r1.drawing.rendering import rendered
from open_r1.evaluation.comparing.matrices import Matrix
from open_r1.evaluation.comparing.pairs import Pairs, adjusted, of_pairs
from open_r1.evaluation.reporting.heatmaps import improvement_matrix
from open_r1.evaluation.scoring.results import graded_result
from open_r1.vocabulary.labels import Modality

SHOWN = (Modality.CT, Modality.MRI, Modality.XRAY, Modality.ULTRASOUND, Modality.FUNDUS)
QUESTIONS = 300


def made_up_pairs(draw: random.Random, trained_on: Modality, tested_on: Modality) -> Pairs:
    """Result lines of two runs on the same questions; the second one is right a little more often."""
    gain = 0.16 if trained_on == tested_on else draw.uniform(-0.06, 0.13)
    pairs = []
    for number in range(QUESTIONS):
        row = {"id": f"{tested_on}-{number}", "problem": "What? A)x, B)y", "solution": "A", "modality": tested_on}
        right = draw.random() < 0.55, draw.random() < 0.55 + gain
        answers = [f"<answer>{'A' if each else 'B'}</answer>" for each in right]
        first, second = (graded_result(row, f"{tested_on}-{number}", answer, tokens=3) for answer in answers)
        pairs.append((first, second))
    return pairs


def main() -> None:
    draw = random.Random(0)
    cells = {(row.value, column.value): made_up_pairs(draw, row, column) for row in SHOWN for column in SHOWN}
    differences = {cell: of_pairs(pairs) for cell, pairs in cells.items()}
    note = f"EXAMPLE: made-up result lines, {QUESTIONS} questions a cell; no model was run. No-think minus think"
    figure = improvement_matrix(
        Matrix("modality", cells), differences, adjusted(differences), "Improvement on each modality", note
    )
    Path(__file__).with_name("example_heatmap.png").write_bytes(rendered(figure, "png"))


if __name__ == "__main__":
    sys.exit(main())
