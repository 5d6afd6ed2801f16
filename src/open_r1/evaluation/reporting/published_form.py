"""The published result form: what Med-R1's evaluation writes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from open_r1.evaluation.scoring.results import Result
from open_r1.grading.problems import solution_letter


def published_form(results: Sequence[Result]) -> dict[str, Any]:
    """The result JSON of Med-R1's evaluation: `accuracy` in per cent, and the results.

    Questions that could not be asked (unreadable images) are left out, and so are closed and open ones.
    """
    answered = [result for result in results if result.outcome is not None and result.answer_type is None]
    rows = [
        {
            "question": result.problem,
            "ground_truth": solution_letter(result.solution),
            "model_output": result.output,
            "extracted_answer": result.letter,
        }
        for result in answered
    ]
    accuracy = 100 * sum(result.correct for result in answered) / len(answered) if answered else None
    return {"accuracy": accuracy, "results": rows}


def published_text(form: Mapping[str, Any]) -> str:
    """What `json.dumps(form, indent=2)` writes of a published form, and a line end, ten times as fast.

    Python indents with an encoder in Python; here that is so for the frame alone.
    """
    frame = json.dumps({**form, "results": []}, indent=2)
    rows = [
        ",\n".join(f'      "{name}": {json.dumps(value)}' for name, value in row.items()) for row in form["results"]
    ]
    listed = ",\n".join(f"    {{\n{row}\n    }}" for row in rows)
    return (frame.replace('"results": []', f'"results": [\n{listed}\n  ]') if rows else frame) + "\n"
