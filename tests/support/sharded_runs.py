"""The same GRPO with the optimizer's state whole and divided among two processes, and continued either way.

torchrun --nproc_per_node=2 tests/support/sharded_runs.py CHECKPOINT OUTPUT

CHECKPOINT's weights are rounded to bfloat16 first, as published ones are. Each run's weights, and what its process
held, go to OUTPUT/RUN-RANK.pt.
"""

import sys
from pathlib import Path
from typing import Any

import tiny_trainers
import torch
from fixed_completions import fixed
from PIL import Image
from transformers import TrainerCallback

from open_r1.checkpoints.loading import load_model

STEPS = 20
RATE = 1e-6


class Memory(TrainerCallback):
    """Counts bytes of gradients and of optimizer state before and after the update of the last step."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.found: dict[str, Any] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Where the gradients lie: storages, and bytes of them and of the gradients themselves."""
        gradients = [weight.grad for weight in self._trainer.model.parameters() if weight.grad is not None]
        storages = {
            gradient.untyped_storage().data_ptr(): gradient.untyped_storage().nbytes() for gradient in gradients
        }
        self.found["gradients"] = sum(gradient.nbytes for gradient in gradients)
        self.found["storages"], self.found["storage_bytes"] = len(storages), sum(storages.values())
        self.found["tensors"] = len(gradients)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Bytes of the optimizer's state on this process."""
        inner = getattr(self._trainer.optimizer, "optimizer", self._trainer.optimizer)
        states = getattr(inner, "optim", inner).state.values()
        self.found["state"] = sum(value.nbytes for values in states for value in values.values() if value.dim())


def open_gradient(row: dict[str, Any]) -> list[Image.Image]:
    """An image that is not of one colour: of equal patches the vision tower's queries and keys get no gradient."""
    return [Image.linear_gradient("L").rotate(30 * number).convert("RGB") for number in tiny_trainers.colours(row)]


def trained(name: str, checkpoint: Path, output: Path, divide: bool, like: str | None = None, **settings: Any) -> Any:
    """Train, or go on from the middle of the run `like`; save what came of it."""
    tiny_trainers.open_colour = open_gradient
    trainer = tiny_trainers.make_trainer(
        checkpoint,
        output / name,
        [0, None, 2, 3],
        model=load_model(checkpoint, dtype=torch.float32),
        **{
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "learning_rate": RATE,
            "max_steps": STEPS,
            "save_strategy": "steps",
            "save_steps": STEPS // 2,
        }
        | settings,
    )
    fixed(trainer)
    if divide:
        trainer.divide_optimizer()
    memory = Memory(trainer)
    trainer.add_callback(memory)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train(resume_from_checkpoint=None if like is None else str(output / like / f"checkpoint-{STEPS // 2}"))
    weights = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    kind = type(trainer.optimizer.optimizer).__name__
    rank = trainer.accelerator.process_index
    torch.save({"before": before, "weights": weights, "optimizer": kind, **memory.found}, output / f"{name}-{rank}.pt")


def main() -> None:
    """All runs, one after the other."""
    checkpoint, output = map(Path, sys.argv[1:])
    for name, divide, like in (
        ("whole", False, None),
        ("divided", True, None),
        ("divided_again", True, "divided"),
        ("then_whole", False, "divided"),
        ("then_divided", True, "whole"),
    ):
        trained(name, checkpoint, output, divide, like)


if __name__ == "__main__":
    main()
