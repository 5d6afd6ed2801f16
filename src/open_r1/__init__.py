"""Med-R1: GRPO for vision-language models on medical multiple-choice questions.

The public API. Names load their modules on first use, so `import open_r1` loads no library:

- questions: `Modality`, `Task`, `Mode`, `build_messages`, `options_in`, `load_rows`
- grading: `grade`, `grade_answer`, `Expected`, `Grade`, `Outcome`, `rewards_for`
- models: `load_model`, `load_processor`, `SharedPrefixGRPOTrainer`
- evaluation: `InferenceSettings`, `infer`, `read_results`, `accuracy`, `difference`, `write_report`
- errors: `UserError`, with a one-line message for the user
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from open_r1.checkpoints.loading import load_model
    from open_r1.checkpoints.processors import load_processor
    from open_r1.common.errors import UserError
    from open_r1.data.loading import load_rows
    from open_r1.evaluation.answering.run import infer
    from open_r1.evaluation.answering.settings import InferenceSettings
    from open_r1.evaluation.reporting.report import write_report
    from open_r1.evaluation.scoring.results import read_results
    from open_r1.evaluation.scoring.statistics import accuracy, difference
    from open_r1.grading.expected import Expected, grade_answer
    from open_r1.grading.grader import Grade, Outcome, grade
    from open_r1.grading.problems import options_in
    from open_r1.rewards.registry import rewards_for
    from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
    from open_r1.vocabulary.labels import Modality, Task
    from open_r1.vocabulary.modes import Mode
    from open_r1.vocabulary.prompts import build_messages

_MODULES = {
    "Expected": "grading.expected",
    "Grade": "grading.grader",
    "InferenceSettings": "evaluation.answering.settings",
    "Modality": "vocabulary.labels",
    "Mode": "vocabulary.modes",
    "Outcome": "grading.grader",
    "SharedPrefixGRPOTrainer": "training.grpo.trainer",
    "Task": "vocabulary.labels",
    "UserError": "common.errors",
    "accuracy": "evaluation.scoring.statistics",
    "build_messages": "vocabulary.prompts",
    "difference": "evaluation.scoring.statistics",
    "grade": "grading.grader",
    "grade_answer": "grading.expected",
    "infer": "evaluation.answering.run",
    "load_model": "checkpoints.loading",
    "load_processor": "checkpoints.processors",
    "load_rows": "data.loading",
    "options_in": "grading.problems",
    "read_results": "evaluation.scoring.results",
    "rewards_for": "rewards.registry",
    "write_report": "evaluation.reporting.report",
}

__all__ = [
    "Expected",
    "Grade",
    "InferenceSettings",
    "Modality",
    "Mode",
    "Outcome",
    "SharedPrefixGRPOTrainer",
    "Task",
    "UserError",
    "accuracy",
    "build_messages",
    "difference",
    "grade",
    "grade_answer",
    "infer",
    "load_model",
    "load_processor",
    "load_rows",
    "options_in",
    "read_results",
    "rewards_for",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'open_r1' has no attribute {name!r}")
    return getattr(import_module(f"open_r1.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
