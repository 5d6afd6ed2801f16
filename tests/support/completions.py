"""Completions with the outcome and the letter that a reader of the rules gives them, labelled by hand.

completions.jsonl names the options and the right letter of each; the labels were written from the rules in
`open_r1.grading.grader` before the code was asked.
"""

import json
from pathlib import Path

SCAN = {"A": "CT", "B": "Chest X-ray", "C": "Pneumonia", "D": "Normal"}
LONG = {
    "A": "It's a good retinal image.",
    "B": "Optical Coherence Tomography (OCT)",
    "C": "Magnetic resonance imaging (MRI)",
    "D": "None of the above",
}
BLOOD = {"A": "B", "B": "A", "C": "AB", "D": "O"}
LUNG = {"A": "Pneumonia", "B": "Viral pneumonia", "C": "No pneumonia", "D": "Edema, pulmonary (both sides)"}
TEN = {letter: f"finding number {number}" for number, letter in enumerate("ABCDEFGHIJ")}
SIZES = {"A": "-5 mm", "B": "5 mm", "C": ">5 mm", "D": "Grade II"}
GERMS = {"A": "E. coli", "B": "C. difficile", "C": "Salmonella", "D": "D. pneumoniae"}
OPTIONS = {"scan": SCAN, "long": LONG, "blood": BLOOD, "lung": LUNG, "ten": TEN, "sizes": SIZES, "germs": GERMS}
_LINES = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").split("\n")[:-1]
TABLE = [
    (row["outcome"], row["letter"], row["completion"], row["solution"], OPTIONS[row["options"]])
    for row in map(json.loads, _LINES)
]
"""Outcome, letter or None, completion, right letter, options."""
