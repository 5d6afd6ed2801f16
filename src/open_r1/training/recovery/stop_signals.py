"""SIGTERM and its like, remembered until the step is done."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from open_r1.modeling.agreement import on_any_process


class StopOnSignal(TrainerCallback):
    """SIGTERM or SIGUSR1 to any process: after the step all of them save and stop.

    Args:
        device: where the processes agree.
        may_save: whether a run could go on from the step that has just ended.
        before_saving: called once when the run is about to stop.
    """

    def __init__(
        self, device: torch.device | str, may_save: Callable[[], bool], before_saving: Callable[[], None]
    ) -> None:
        self.stopped = False
        self._device, self._may_save, self._before_saving = device, may_save, before_saving
        self._asked = self._save_is_due = False
        self._earlier: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True  # agreed on at the end of the step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._earlier[number] = signal.signal(number, self._note)

    def due_within_evaluation(self) -> bool:
        """Whether any process was told to stop, and the run could go on from the step that was evaluated."""
        return on_any_process(self._asked, self._device) and self._may_save()

    def stop(self, control: Any) -> None:
        """Have the training loop end, with a checkpoint that can be continued."""
        self.stopped = control.should_training_stop = True
        self._before_saving()

    def release(self) -> None:
        """Give the signals back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agree; a save that falls between two uses of the same completions waits for the next whole step."""
        asked = on_any_process(self._asked, self._device)
        ended = state.global_step >= state.max_steps
        due = control.should_save or self._save_is_due or asked
        if due and not (self._may_save() or ended):
            control.should_save, self._save_is_due = False, True
            return
        control.should_save, self._save_is_due = due, False
        if asked and not ended:
            self.stop(control)
