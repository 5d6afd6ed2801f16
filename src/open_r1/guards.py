"""What stops a run on all its processes at once: a signal, numbers that are not finite, a reward that fails, a hang.

One process alone must never leave the others waiting in a collective call, so each finding is first agreed on by all.
"""

import faulthandler
import functools
import inspect
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from open_r1.errors import UserError

EXIT_HUNG = 76
Result = TypeVar("Result")
_GRACE = 3.0  # seconds that a process which only waits leaves the hanging one to print its stacks
_SHOWN = 300


def on_any_process(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether the flag is set on any process; all of them must call it. About 0.5 ms."""
    if not _together():
        return flag
    number = torch.tensor([float(flag)], dtype=torch.float32, device=device)
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return bool(number.item())


def stop_everywhere(problem: str | None, device: torch.device | str = "cpu") -> None:
    """Stop all processes if one has a problem; all of them must call it.

    Raises:
        UserError: on the first process, with every problem and the process that has it.
        SystemExit: on the others, which have nothing to add.
    """
    if not on_any_process(problem is not None, device):
        return
    if not _together():
        raise UserError(str(problem))
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, problem)
    if dist.get_rank() != 0:
        raise SystemExit(2)
    told = {text: rank for rank, text in reversed(list(enumerate(found))) if text is not None}
    raise UserError("; ".join(f"{text} (process {rank})" for text, rank in sorted(told.items(), key=lambda i: i[1])))


def on_first_process(work: Callable[[], Result], device: torch.device | str = "cpu") -> Result | None:
    """What the first process makes of `work`; None on the others, which wait without a limit of time.

    A collective call ends after `--ddp_timeout`, so one is made every half second until the work is done. All
    processes must call this, and `work` must make no collective calls.

    Raises:
        UserError: the work raised one; see `stop_everywhere`.
    """
    if not _together():
        return work()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    if dist.get_rank() == 0:
        thread.start()
    while on_any_process(thread.is_alive(), device):
        thread.join(0.5) if dist.get_rank() == 0 else None
    unexpected = [error for error in errors if not isinstance(error, UserError)]
    if unexpected:
        raise unexpected[0]
    stop_everywhere(str(errors[0]) if errors else None, device)
    return results[0] if results else None


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


# --- rewards ---------------------------------------------------------------------------------------------------------


class Rewards:
    """Reward functions that report what goes wrong instead of raising on one process alone."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def guarded(self, function: Any) -> Any:
        """The same reward function; a reward model or a coroutine is left as it is."""
        if isinstance(function, torch.nn.Module) or inspect.iscoroutinefunction(function):
            return function

        @functools.wraps(function)
        def reward(**batch: Any) -> Sequence[float | None]:
            name, count = getattr(function, "__name__", "reward"), len(batch["completions"])
            try:
                values = list(function(**batch))
            except Exception as error:
                self.problem = f"the reward {name} raised {type(error).__name__}: {error}"[:_SHOWN]
                return [0.0] * count
            wrong = [value for value in values if value is not None and not math.isfinite(value)]
            if wrong:
                self.problem = (
                    f"the reward {name} gave {wrong[0]} for {len(wrong)} of {count} completions; its group's "
                    "advantages would all be wrong, without a word"
                )
                return [0.0] * count
            return values

        return reward

    def require_sound(self, device: torch.device | str) -> None:
        """Stop all processes if a reward function failed on one since the last call."""
        problem, self.problem = self.problem, None
        stop_everywhere(None if problem is None else f"{problem}: mend it or leave it out of --reward_funcs", device)


# --- signals ---------------------------------------------------------------------------------------------------------


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


# --- hangs -----------------------------------------------------------------------------------------------------------


class Watchdog:
    """Ends a process that makes no progress within a step, and says where it stands.

    Args:
        limit: seconds without a `beat`.
        rank: of this process.
        folder: gets `stacks-rank<N>.txt`.
    """

    def __init__(self, limit: float, rank: int, folder: Path) -> None:
        self.limit, self._rank, self._folder = limit, rank, folder
        self._last: float | None = None
        self._place = ""
        self._thread: threading.Thread | None = None

    def beat(self, place: str) -> None:
        """Progress was made; `place` is what comes now."""
        self._last, self._place = time.monotonic(), place
        # by C alone, for the case that whatever hangs does not let other threads of Python run
        faulthandler.dump_traceback_later(self.limit + 4 * _GRACE, exit=True, file=2)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def rest(self) -> None:
        """Nothing is timed until the next beat."""
        self._last = None
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self.limit / 10))
            last = self._last
            if last is not None and time.monotonic() - last > self.limit:
                self._end(time.monotonic() - last)

    def _end(self, seconds: float) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        waits = _waits_for_others(frame)
        head = f"error: process {self._rank} made no progress for {seconds:.0f} s ({self._place})"
        if waits:
            time.sleep(_GRACE)
            print(f"{head}: it waits for the other processes", file=sys.stderr, flush=True)
            os._exit(EXIT_HUNG)
        place = self._folder / f"stacks-rank{self._rank}.txt"
        print(
            f"{head}: it hangs, its stacks follow and are in {place}. The last complete checkpoint is kept and the "
            "same command continues from it; where a step is just slow, raise --ddp_timeout",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=2, all_threads=True)
        try:
            with open(place, "w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:
            pass  # they are on the screen
        os._exit(EXIT_HUNG)


def _waits_for_others(frame: FrameType | None) -> bool:
    names: list[str] = []
    while frame is not None and len(names) < 3:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    return any(f"torch{os.sep}distributed" in name or f"deepspeed{os.sep}comm" in name for name in names)


# --- numbers ---------------------------------------------------------------------------------------------------------


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every number of every tensor is finite."""
    sums = [tensor.detach().float().abs().amax() for tensor in tensors if tensor.numel()]
    return bool(torch.stack(sums).isfinite().all()) if sums else True
