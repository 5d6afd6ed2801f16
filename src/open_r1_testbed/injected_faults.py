"""Faults planted in one process of a real training run: all processes must stop and keep the last good checkpoint.

A part of `chaos`, which holds the runs and what they are compared with.
"""

import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from open_r1.training.recovery.watchdog import EXIT_HUNG
from open_r1_testbed.fault_scenarios import Layout, Site, apart, require_whole_checkpoints, tail


def _reward(problem: Callable[[int], Any]) -> Callable[[], None]:
    """From its third call on, a reward does what `problem` does with the number of completions."""

    def plant() -> None:
        from open_r1.training import grpo_run

        calls = 0

        def spread(completions: list[Any], **_: Any) -> Any:
            nonlocal calls
            calls += 1
            return problem(len(completions)) if calls > 2 else [float(i % 2) for i in range(len(completions))]

        grpo_run.rewards_for = lambda *_: [spread]

    return plant


def _raise(count: int) -> None:
    raise KeyError("solution")


def _hang(count: int) -> None:
    while True:
        time.sleep(0.1)


class _Spoilt(torch.autograd.Function):
    """The loss as it is, with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * float("inf")


def _third_loss(spoil: Callable[[torch.Tensor], Any]) -> Callable[[], None]:
    """The loss of the third step is what `spoil` makes of it."""

    def plant() -> None:
        from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer

        original = SharedPrefixGRPOTrainer._group_loss

        def group_loss(self: Any, model: Any, prompts: Any, values: Any, total: Any) -> torch.Tensor:
            loss = original(self, model, prompts, values, total)
            return spoil(loss) if self.state.global_step == 2 else loss

        SharedPrefixGRPOTrainer._group_loss = group_loss

    return plant


def _full_disk() -> None:
    """No file may grow over 60 kB from the third step on: run.json fits, the weights do not."""
    from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer

    original = SharedPrefixGRPOTrainer._save_checkpoint

    def save(self: Any, model: Any, trial: Any) -> None:
        if self.state.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        original(self, model, trial)

    SharedPrefixGRPOTrainer._save_checkpoint = save


@dataclass(frozen=True)
class Fault:
    """What is planted in the last rank, and what must be said about it."""

    plant: Callable[[], None]
    message: str
    codes: tuple[int, ...] = (2,)
    on_first: bool = False
    """Planted in the first rank instead, which alone writes the weights."""


# A process that waits for the hanging one may be about to end by itself when torchrun ends it.
_ENDED_BY_LAUNCHER = (-signal.SIGTERM, -signal.SIGKILL)

FAULTS = {
    "reward raises": Fault(_reward(_raise), "the reward spread raised KeyError"),
    "reward is infinite": Fault(_reward(lambda n: [float("inf")] * n), "the reward spread gave inf"),
    "reward is not a number": Fault(_reward(lambda n: [float("nan")] * n), "the reward spread gave nan"),
    "loss is not a number": Fault(_third_loss(lambda loss: loss * float("nan")), "the loss of step 3 is not finite"),
    "gradient is infinite": Fault(_third_loss(_Spoilt.apply), "the gradient of step 3 is not finite"),
    "a rank hangs": Fault(_reward(_hang), "it hangs, its stacks follow", (EXIT_HUNG, 2, *_ENDED_BY_LAUNCHER)),
    "disk is full": Fault(_full_disk, "cannot write the checkpoint", on_first=True),
}


def fault(site: Site, name: str, layout: Layout) -> str:
    """A fault on one rank stops all of them with one message and leaves the last good checkpoint."""
    planted, output = FAULTS[name], site.fresh()
    place = 0 if planted.on_first else layout.processes - 1
    # well above a slow step of a busy machine
    flags = ["--ddp_timeout", "20"] if name == "a rank hangs" else []
    start = time.monotonic()
    run = site.start(output, layout, *flags, fault=lambda rank: planted.plant() if rank == place else None)
    codes = run.wait()
    seconds = time.monotonic() - start
    log = run.log.read_text()
    assert all(code in planted.codes for code in codes), (codes, tail(run))
    assert log.count(planted.message) == 1, tail(run)
    assert "Traceback" not in log, tail(run)
    newest_step = require_whole_checkpoints(output)
    assert newest_step == 2, (newest_step, tail(run))
    for path in (output / "checkpoint-2").glob("*.safetensors"):
        apart(lambda path=path: _require_finite(path))
    return f"{layout}: {name} on rank {place}: all stopped after {seconds:.0f} s, checkpoint-2 is kept and finite"


def _require_finite(path: Path) -> None:
    from safetensors.torch import load_file

    assert all(value.isfinite().all() for value in load_file(path).values())
