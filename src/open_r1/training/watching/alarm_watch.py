"""Looks for alarms in each log entry: lines in log and alarms.jsonl, a number in metrics.jsonl, a stop on request."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from open_r1.common.atomic_files import DiskError
from open_r1.common.errors import UserError
from open_r1.common.metrics_log import ALARMS, append_lines, start_lines
from open_r1.grading.expected import Expected
from open_r1.grading.grader import extract_answer
from open_r1.grading.problems import solution_letter
from open_r1.modeling.agreement import on_any_process
from open_r1.training.watching.alarms import AGAINST_REASONING, LETTER_EXCESS, Alarm, AlarmStates, rewards_in
from open_r1.training.watching.group_recorder import ALL, Group, GroupRecorder, shortened
from open_r1.training.watching.progress import add_first, add_to_entry
from open_r1.vocabulary.answer_types import AnswerType

MOST_GRADED = 32  # completions of a step
SHOWN = 150  # characters of a completion


def watch_groups(trainer: Any, record: str, stop_on: Sequence[str] = ()) -> None:
    """Let a trainer write groups.jsonl, as `GroupRecorder` takes `record`, and follow the alarms."""
    if trainer.accelerator.is_main_process:
        trainer.recorder = GroupRecorder(trainer, record)
    add_first(trainer, AlarmWatch(trainer, stop_on, trainer.recorder))
    if trainer.recorder is not None:
        add_first(trainer, trainer.recorder)  # before the watch, which looks at its sample


class AlarmWatch(TrainerCallback):
    """Follows the alarms of a run.

    Args:
        trainer: `ResumableTrainer`; an alarm that stops it is named in its `stopped_by_alarm`.
        stop_on: names of alarms that end the run.
        recorder: of the groups of the first process; None on others.
    """

    def __init__(self, trainer: Any, stop_on: Sequence[str], recorder: GroupRecorder | None) -> None:
        self._trainer, self._stop_on, self._recorder = trainer, set(stop_on), recorder
        self._states = AlarmStates()
        self._stopping = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go through the log of the run that is continued, so that no alarm fires again for what it has fired for."""
        if self._recorder is not None:
            start_lines(Path(args.output_dir) / ALARMS, anew=not state.global_step)
            for entry in state.log_history:
                self._states.add(entry)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add what a sample of the step's completions answers to the next log entry."""
        if self._recorder is not None:
            for name, value in answer_metrics(self._recorder.sample_of_step).items():
                self._trainer._metrics["train"][name].append(value)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Look for alarms in a step's entry. All processes stop together."""
        if "loss" not in (logs or {}):
            return
        fired = self._states.add(state.log_history[-1]) if self._recorder is not None else []
        for alarm, value in fired:
            self._report(alarm, value, args, state, logs)
        stopping = [alarm.name for alarm, _ in fired if alarm.name in self._stop_on]
        if self._stop_on and on_any_process(bool(stopping), self._trainer.accelerator.device):
            self._trainer.stopped_by_alarm = " ".join(stopping) or "of the first process"
            self._stopping = True
        if self._stopping:
            self._trainer.signals.stop_soon(state, control)

    def _report(self, alarm: Alarm, value: float, args: Any, state: Any, logs: dict[str, Any]) -> None:
        message = alarm.message.format(value=value)
        if alarm.name == "no_reward":
            message += self._what_is_missed(state.log_history[-1])
        add_to_entry(state, logs, {f"alarms/{alarm.name}": 1.0})
        tqdm.write(f"alarm {alarm.name}, step {state.global_step}: {message}")
        line = {"step": state.global_step, "alarm": alarm.name, "value": float(f"{value:.4g}"), "message": message}
        try:
            append_lines(Path(args.output_dir) / ALARMS, [line])
        except DiskError as error:
            tqdm.write(f"warning: {error}")

    def _what_is_missed(self, entry: dict[str, Any]) -> str:
        names = [key.split("/")[1].removesuffix("_reward") for key in rewards_in([entry])]
        text = f" (rewards: {', '.join(names)})"
        group = next(iter(self._recorder.sample_of_step), None) if self._recorder is not None else None
        if group is not None and self._recorder is not None and self._recorder.what == ALL:
            examples = " and ".join(repr(shortened(completion, SHOWN)) for completion in group.texts[:2])
            text += f". Two completions: {examples}"
        return text


def answer_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What completions to questions of choice answer, from at most `MOST_GRADED` of them.

    Returns:
        `answers/letter_excess`, by how much the share of the letter answered most exceeds that where it is right, and
        `answers/against_reasoning`, the share that answers another letter than its thoughts argue for, of completions
        whose thoughts argue for one. An entry is absent where nothing was read.
    """
    answered, right, differs = [], [], []
    for group in groups:
        expected = _choice(group)
        if expected is None or len(answered) >= MOST_GRADED:
            continue
        for text in group.texts:
            letter = extract_answer(text, expected.options, expected.question)
            if letter is None:
                continue
            answered.append(letter)
            right.append(solution_letter(expected.solution))
            thoughts = text.partition("<think>")[2].partition("</think>")[0]
            argued = extract_answer(thoughts, expected.options, expected.question) if thoughts.strip() else None
            differs += [] if argued is None else [argued != letter]
    metrics = {}
    if answered:
        favourite = max(sorted(set(answered)), key=answered.count)
        metrics[LETTER_EXCESS] = (answered.count(favourite) - right.count(favourite)) / len(answered)
    if differs:
        metrics[AGAINST_REASONING] = fmean(differs)
    return metrics


def _choice(group: Group) -> Expected | None:
    """What a question of choice expects; None for other questions, and for rows that nobody has checked."""
    if not (group.row.get("problem") and group.row.get("solution")):
        return None
    try:
        expected = Expected.of(group.row)
        if expected.answer_type is AnswerType.CHOICE:
            solution_letter(expected.solution)
    except UserError:
        return None
    return expected if expected.answer_type is AnswerType.CHOICE else None
