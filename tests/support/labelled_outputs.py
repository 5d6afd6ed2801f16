"""Outputs in the style of Qwen2-VL, Med-R1, HuatuoGPT-o1 and R1-like models, with the letter a careful reader reads.

All of them were written for labelled_outputs.jsonl, the label before the grader was asked. null: no answer can be read
with certainty, be it that none is given, that several are, or that the writer's mind changed after one was given. A
label follows the reader and not the rules, so some answers here are beyond the grader; none may be read as another
letter.
"""

import json
from pathlib import Path

DISEASE = {"A": "Pneumothorax", "B": "Pleural effusion", "C": "Pneumonia", "D": "Normal"}
OPTIONS = {
    "modality": {"A": "CT", "B": "MRI", "C": "X-ray", "D": "Ultrasound"},
    "disease": DISEASE,
    "place": {"A": "left upper lobe", "B": "right lower lobe", "C": "right upper lobe", "D": "left lower lobe"},
    "yes_first": {"A": "Yes", "B": "No"},
    "no_first": {"A": "No", "B": "Yes", "C": "Not enough information"},
    "nothing": {"A": "No pneumonia", "B": "Pneumonia", "C": "Cannot be determined", "D": "Both lungs"},
    "cause": {
        "A": "Vitamin C deficiency",
        "B": "Hepatitis B infection",
        "C": "Streptococcus pneumoniae",
        "D": "Escherichia coli",
        "E": "Observation",
    },
}
_LINES = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").split("\n")[:-1]
OUTPUTS = [(OPTIONS[row["options"]], row["letter"], row["output"]) for row in map(json.loads, _LINES)]
"""Options, the letter that is read or None, and the output."""
