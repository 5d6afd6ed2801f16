"""Memory that a run will take after its first step, taken already while its longest batch is tried."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import DistributedType

from open_r1.training.memory.flags_of_run import states_per_weight


@contextmanager
def room_taken(trainer: Any) -> Iterator[int]:
    """Hold as many bytes within the block as later steps will find taken; yields how many.

    Raises:
        torch.OutOfMemoryError: they are not there.
    """
    size = bytes_to_come(trainer)
    placeholder = torch.empty(size, dtype=torch.uint8, device=trainer.accelerator.device)
    try:
        yield size
    finally:
        del placeholder


def bytes_to_come(trainer: Any) -> int:
    """Bytes on this process of the optimizer's state, which is made by the first step, and of gradients that lie beside
    a pass where a step has several.

    DeepSpeed makes its state before; the shards of FSDP are not counted.
    """
    if trainer.accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP):
        return 0
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate's wrapper
    local = getattr(optimizer, "optim", optimizer)  # of a divided one this process's part
    updated = [weight for group in local.param_groups for weight in group["params"]]
    states = 0.0
    if not local.state:
        optim = trainer.args.optim
        states = states_per_weight(str(getattr(optim, "value", optim))) * sum(weight.nbytes for weight in updated)
    gradients = 0
    if trainer.args.gradient_accumulation_steps > 1 and not trainer.divides_optimizer:
        gradients = sum(weight.nbytes for weight in trainer.model.parameters() if weight.requires_grad)
    return int(states) + gradients
