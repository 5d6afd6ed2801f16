"""Handle SIGTERM and SIGUSR1 at the end of a step."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from open_r1.modeling.agreement import on_any_process


class StopOnSignal(TrainerCallback):
    """After SIGTERM or SIGUSR1 to any process, all of them save and stop at the end of the step.

    Args:
        device: device of the collective calls.
        may_save: whether a run could resume from the step that has just ended.
        before_saving: called once before the run saves and stops.
    """

    def __init__(
        self, device: torch.device | str, may_save: Callable[[], bool], before_saving: Callable[[], None]
    ) -> None:
        self.stopped = False
        self._device, self._may_save, self._before_saving = device, may_save, before_saving
        self._signalled = self._save_is_due = False
        self._earlier_handlers: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True  # handled at the end of the step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Install the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._earlier_handlers[number] = signal.signal(number, self._note)

    def due_within_evaluation(self) -> bool:
        """Whether any process received a signal, and the run could resume from the evaluated step."""
        return on_any_process(self._signalled, self._device) and self._may_save()

    def stop(self, control: Any) -> None:
        """Let the training loop end with a resumable checkpoint."""
        self.stopped = control.should_training_stop = True
        self._before_saving()

    def stop_soon(self, state: Any, control: Any) -> None:
        """Save and stop at this step or, between two uses of the same completions, after the last use."""
        if state.global_step >= state.max_steps:
            return
        if self._may_save():
            control.should_save = True
            self.stop(control)
        else:
            self._signalled = True

    def release(self) -> None:
        """Restore the earlier signal handlers."""
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        self._earlier_handlers.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop if any process was signalled; a save between two uses of the same completions is postponed."""
        signalled = on_any_process(self._signalled, self._device)
        ended = state.global_step >= state.max_steps
        due = control.should_save or self._save_is_due or signalled
        if due and not (self._may_save() or ended):
            control.should_save, self._save_is_due = False, True
            return
        control.should_save, self._save_is_due = due, False
        if signalled and not ended:
            self.stop(control)
