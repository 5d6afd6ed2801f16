"""groups.jsonl: per step a sample of the groups that its update uses, with completions, rewards and advantages.

The file is bounded: at most `STEP_BYTES` a step. Which groups it shows follows from the step alone, so that no random
number is drawn, and images are never copied. It holds the groups of the first process.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from open_r1.common.atomic_files import DiskError
from open_r1.common.errors import UserError
from open_r1.common.metrics_log import GROUPS, append_lines, json_line, read_lines, start_lines
from open_r1.grading.expected import Expected
from open_r1.grading.problems import solution_letter
from open_r1.rewards.settings import Completion, completion_text
from open_r1.training.command_line.arguments import RECORDED
from open_r1.vocabulary.answer_types import AnswerType

ALL, SCORES, NONE = RECORDED
STEP_BYTES = 5_000  # so that 1,000 steps take at most 5 MB
MOST_GROUPS = 16  # of a step; more would not fit
LIMITS = (2000, 1000, 700, 500, 350, 250)  # characters of a completion, the largest that fits
SHORT_LIMITS = (150, 80, 40, 20, 0)  # where not even one group fits otherwise; 0 leaves completions out
LONGEST_PROBLEM = 800  # characters
GAP = " … "
COLUMNS = ("id", "modality", "task", "problem", "solution", "answer_type", "aliases")

Row = dict[str, Any]


@dataclass
class Group:
    """The completions of one question in a rollout."""

    row: Row  # `COLUMNS` alone: no image is kept
    texts: list[str]
    lengths: list[int]  # tokens
    cut_off: list[bool]
    rewards: list[list[float]]  # by completion, then by reward function; NaN where it says nothing
    is_replacement: bool
    advantages: list[float]


class RecordsGroups(GRPOTrainer if TYPE_CHECKING else object):
    """Mixin before TRL's trainer: shows a recorder what is sampled, rewarded and used. It changes nothing."""

    model: Any
    recorder: "GroupRecorder | None" = None

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.recorder is not None and self.model.training:
            self.recorder.add_rewarded(inputs, completions, completion_ids_list, rewards)
        return rewards

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        scored = super()._generate_and_score_completions(inputs)
        if self.recorder is not None and self.model.training:
            scored["completion_number"] = self.recorder.add_advantages(scored["advantages"])
        return scored

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        if self.recorder is not None and self.model.training:
            self.recorder.add_used(inputs["completion_number"])
        return super().compute_loss(model, inputs, *arguments, **options)


class GroupRecorder(TrainerCallback):
    """Writes groups.jsonl of the output folder, on the first process.

    Args:
        trainer: `RecordsGroups`.
        what: `all`; `scores` for neither completions nor problems; `none` to write nothing.
    """

    def __init__(self, trainer: Any, what: str) -> None:
        self._trainer, self.what = trainer, what
        self._groups: list[Group] = []  # of the rollout in use
        self._numbers: list[int] = []  # of groups that the step in progress uses for the first time
        self._used: set[int] = set()
        self._recorded_ids: set[str] = set()
        self.sample_of_step: list[Group] = []
        """Some of the groups that the last step used for the first time; which come first rotates with the step."""

    # --- called by the trainer -----------------------------------------------------------------------------------

    def add_rewarded(
        self, rows: Sequence[Row], completions: Sequence[Completion], tokens: Sequence[Sequence[int]], rewards: Any
    ) -> None:
        """Note the completions of whole groups: those of a new rollout, or those drawn in place of dead groups.

        Args:
            rows: one per completion.
            completions: as rewards get them.
            tokens: of each completion.
            rewards: (completions of all processes, reward functions).
        """
        if self._used:
            self._groups, self._used = [], set()
        is_replacement = bool(self._groups)
        size, ends = self._trainer.num_generations, set(self._trainer.eos_token_ids)
        values = rewards[: len(rows)].tolist()
        for start in range(0, len(rows), size):
            places = range(start, start + size)
            self._groups.append(
                Group(
                    {name: rows[start].get(name) for name in COLUMNS},
                    [completion_text(completions[place]) for place in places],
                    [len(tokens[place]) for place in places],
                    [not tokens[place] or tokens[place][-1] not in ends for place in places],
                    [values[place] for place in places],
                    is_replacement,
                    [],
                )
            )

    def add_advantages(self, advantages: torch.Tensor) -> torch.Tensor:
        """Note the advantages of the groups that were added last; returns a number for each of their completions."""
        size, count = self._trainer.num_generations, len(advantages)
        values, first = advantages.tolist(), len(self._groups) - count // size
        for place, group in enumerate(self._groups[first:]):
            group.advantages = values[place * size : (place + 1) * size]
        return torch.arange(first * size, first * size + count)

    def add_used(self, completion_numbers: torch.Tensor) -> None:
        """Note that a micro-batch uses these completions."""
        numbers = {number // self._trainer.num_generations for number in completion_numbers.flatten().tolist()}
        self._numbers += sorted(numbers - self._used)
        self._used |= numbers

    # --- events --------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the file, or go on with that of the run which is continued."""
        if self.what == NONE:
            return
        path = Path(args.output_dir) / GROUPS
        start_lines(path, anew=not state.global_step)
        self._recorded_ids = {line["id"] for line in read_lines(path) if "problem" in line and "id" in line}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what the step has used. A disk that takes nothing more ends the record, not the run."""
        count = len(self._numbers)
        places = [(state.global_step + place) % count for place in range(min(count, MOST_GROUPS))]
        groups = self.sample_of_step = [self._groups[self._numbers[place]] for place in places]
        self._numbers = []
        if self.what == NONE:
            return
        lines = self._lines_within(STEP_BYTES, groups, state.global_step)
        try:
            append_lines(Path(args.output_dir) / GROUPS, lines)
        except DiskError as error:
            self.what = NONE
            print(f"warning: {GROUPS} ends here: {error}", flush=True)
        self._recorded_ids |= {line["id"] for line in lines if "problem" in line}

    def _lines_within(self, budget: int, groups: Sequence[Group], step: int) -> list[Row]:
        """As many groups as fit, with the longest completions with which these fit."""
        for limit in (*LIMITS, *SHORT_LIMITS):
            lines, room = [], budget
            recorded = set(self._recorded_ids)
            for group in groups:
                lines.append(self._line(group, step, limit, recorded))
                room -= len(json_line(lines[-1]))
                recorded.add(lines[-1]["id"])
                if room < 0:
                    break
            if room >= 0:
                return lines
            if limit <= LIMITS[-1] and len(lines) > 1:
                return lines[:-1]
        return []

    def _line(self, group: Group, step: int, limit: int, recorded: set[str]) -> Row:
        row, trainer = group.row, self._trainer
        line: Row = {"step": step, "id": id_of(row)}
        line |= {name: row[name] for name in ("modality", "task") if row.get(name)}
        if self.what == ALL and line["id"] not in recorded:
            problem = str(row.get("problem", ""))
            longest = min(LONGEST_PROBLEM, max(100, 2 * limit))
            line["problem"] = problem if len(problem) <= longest else f"{problem[: longest - 1]}…"
        if row.get("solution"):
            line["solution"] = right_answer(row)
        if self.what == ALL and limit:
            line["completions"] = [shortened(text, limit) for text in group.texts]
        names = [name.removesuffix("_reward") for name in trainer.reward_func_names]
        by_function = zip(*group.rewards, strict=True)
        line |= {"lengths": group.lengths, "cut_off": group.cut_off}
        line["rewards"] = {name: [_rounded(v) for v in vs] for name, vs in zip(names, by_function, strict=True)}
        line["advantages"] = [_rounded(value) for value in group.advantages]
        has_other_terms = bool(trainer.beta) or trainer._entropy_bonus_enabled
        line["left_out"] = not any(group.advantages) and not has_other_terms
        return line | {"replaced": group.is_replacement}


def id_of(row: Row) -> str:
    """The id of a question; a data set of one's own may have none."""
    problem = str(row.get("problem", ""))
    return str(row.get("id") or f"row {hashlib.sha256(problem.encode()).hexdigest()[:12]}")


def right_answer(row: Row) -> str:
    """The right letter of a question of choice, or the text of the right answer; the solution as it is elsewhere."""
    try:
        expected = Expected.of(row)
        is_choice = expected.answer_type is AnswerType.CHOICE
        return solution_letter(expected.solution) if is_choice else shortened(expected.solution, LIMITS[-1])
    except UserError:  # rows of a trainer of one's own are not checked
        return shortened(str(row["solution"]), LIMITS[-1])


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` characters, cut in its middle."""
    if len(text) <= limit:
        return text
    head = (limit - len(GAP)) // 2
    return text[:head] + GAP + text[len(text) - (limit - len(GAP) - head) :]


def _rounded(value: float) -> float | None:
    """Four significant digits; None for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
