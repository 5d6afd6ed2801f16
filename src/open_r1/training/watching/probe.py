"""A fixed set of training questions, asked without their images every so many steps: is the answer guessed?"""

from typing import Any

import torch
from transformers import TrainerCallback

from open_r1.grading.problems import solution_letter
from open_r1.training.grpo.blind_answers import BlindAnswers
from open_r1.training.watching.alarms import RIGHT_WITHOUT_IMAGE

QUESTIONS = 64


class ProbeWithoutImage(TrainerCallback):
    """Logs how likely the model holds the right letter without the image, after step 1 and every `steps` steps.

    Every process asks a part of the questions in one pass over their texts. No random number is drawn.

    Args:
        trainer: `SharedPrefixGRPOTrainer`.
        blind_answers: asks the model.
        steps: between two probes.
    """

    def __init__(self, trainer: Any, blind_answers: BlindAnswers, steps: int) -> None:
        self._trainer, self._blind_answers, self._steps = trainer, blind_answers, steps
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take questions evenly from the whole training set."""
        dataset, accelerator = self._trainer.train_dataset, self._trainer.accelerator
        count = min(QUESTIONS, len(dataset))
        places = [place * len(dataset) // count for place in range(count)]
        self._rows = [dataset[place] for place in places[accelerator.process_index :: accelerator.num_processes]]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask, and add the mean to the next log entry; nothing if no question has an image and a choice."""
        if state.global_step != 1 and state.global_step % self._steps:
            return
        accelerator = self._trainer.accelerator
        self._blind_answers.note_space(self._trainer._logs["completion"])  # the newest of all processes
        answers = self._blind_answers.letters(self._rows, self._trainer.model, accelerator)
        right = [
            letters.get(solution_letter(row["solution"]), 0.0)
            for row, letters in zip(self._rows, answers, strict=True)
            if letters is not None
        ]
        sums = torch.tensor([[sum(right), float(len(right))]], device=accelerator.device)
        total, count = accelerator.gather(sums).sum(dim=0).tolist()
        if count:
            self._trainer._metrics["train"][RIGHT_WITHOUT_IMAGE].append(total / count)
