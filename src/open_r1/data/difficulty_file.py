"""The file of scripts/grade_difficulty.py: how often a model answered each training question correctly."""

from dataclasses import dataclass
from pathlib import Path

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError

LABELS = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Graded:
    """One question and how often it was answered correctly."""

    id: str
    correct: int
    samples: int
    pass_rate: float
    label: str


def read_difficulty(path: Path) -> dict[str, Graded]:
    """The questions of a difficulty file by id.

    Raises:
        UserError: the file is missing or not a difficulty file.
    """
    try:
        first_line, *lines = path.read_text(encoding="utf-8").splitlines()
        parse_json(first_line)["manifest"]["thresholds"]
        graded = [Graded(**parse_json(line)) for line in lines]
        return {question.id: question for question in graded}
    except FileNotFoundError:
        raise UserError(f"--difficulty {path} is not there; make it with scripts/grade_difficulty.py") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--difficulty {path} is not a file of scripts/grade_difficulty.py ({reason}); give the file it wrote"
        ) from None
