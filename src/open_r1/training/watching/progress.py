"""Elapsed and remaining time in every log entry, and the curves of a run drawn into its folder at each save."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from open_r1.common.atomic_files import write_atomically
from open_r1.common.metrics_log import read_metrics
from open_r1.rewards.custom import one_line

CURVES = "curves.png"
FEWEST_STEPS = 10  # a run of fewer is a trial, and drawing it would take longer than a small model's training
FEWEST_ENTRIES = 3  # logged steps that make a curve
MOST_TIME = 0.01  # share of the time that drawings at saves may take


def add_first(trainer: Any, callback: TrainerCallback) -> None:
    """Add a callback before all others, so that trackers and metrics.jsonl get what it adds to a log entry."""
    trainer.callback_handler.callbacks.insert(0, callback)


def add_to_entry(state: Any, logs: dict[str, Any], values: dict[str, float]) -> None:
    """Add values to the log entry that a callback's `on_log` is called for."""
    logs.update(values)
    state.log_history[-1].update(values)


class ElapsedTime(TrainerCallback):
    """Adds `elapsed_seconds`, with those of earlier parts of a continued run, and `remaining_seconds` to log entries.

    Args:
        trainer: `ResumableTrainer`.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._timed_from: tuple[int, float] | None = None  # step and time of the end of this process's first step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the end of the first step, which is slower than others."""
        self._timed_from = self._timed_from or (state.global_step, time.monotonic())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Add the times."""
        elapsed = self._trainer.seconds_so_far()
        values = {"elapsed_seconds": round(elapsed, 1)}
        if self._timed_from is not None and state.global_step:
            step, start = self._timed_from
            steps = state.global_step - step
            pace = (time.monotonic() - start) / steps if steps else elapsed / state.global_step
            values["remaining_seconds"] = round(pace * (state.max_steps - state.global_step), 1)
        add_to_entry(state, logs, values)


class CurvesAtSave(TrainerCallback):
    """Draws curves.png from metrics.jsonl at saves and at the end; a failure is one line and never ends the run."""

    def __init__(self) -> None:
        self._next = 0.0  # of time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw on the main process, unless drawings would take more than `MOST_TIME`."""
        if time.monotonic() >= self._next:
            self._draw(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the whole run."""
        self._draw(args, state)

    def _draw(self, args: Any, state: Any) -> None:
        if not state.is_world_process_zero or state.global_step < FEWEST_STEPS:
            return
        start = time.monotonic()
        try:
            from open_r1.drawing.rendering import rendered
            from open_r1.drawing.training_curves import curves_figure

            folder = Path(args.output_dir)
            log = read_metrics(folder) or []
            if sum("loss" in entry for entry in log) >= FEWEST_ENTRIES:
                figure = curves_figure({folder.resolve().name: log})
                if figure is not None:
                    write_atomically(folder / CURVES, rendered(figure, "png"))
        except Exception as error:
            print(f"warning: {CURVES} could not be drawn ({type(error).__name__}: {one_line(error)})", flush=True)
        end = time.monotonic()
        self._next = end + (end - start) / MOST_TIME


def watch_progress(trainer: Any) -> None:
    """Let a trainer log its times and draw its curves. Call after all callbacks that read log entries are added."""
    add_first(trainer, ElapsedTime(trainer))
    trainer.add_callback(CurvesAtSave())
