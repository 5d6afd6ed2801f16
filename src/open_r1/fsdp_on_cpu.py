"""FSDP where there is no GPU: for trying a sharded recipe out on two CPU processes."""

import os
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType


def fsdp_is_asked() -> bool:
    """Whether `accelerate launch` was given an FSDP configuration (it tells so in the environment)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shard_on_cpu(training: Any) -> None:
    """Have accelerate really shard on CPUs, once the process group is open.

    accelerate 1.15 shards only where the process state says MULTI_GPU or another accelerator; on MULTI_CPU it drops
    FSDP without a word and trains plain DDP. torch's own `fully_shard` works on CPUs with gloo, and nothing else of
    accelerate's 1.15 looks at that entry once the device is chosen.

    Args:
        training: finished training arguments on a CPU; nothing happens with one process.
    """
    if not fsdp_is_asked() or training.world_size == 1:
        return
    assert training.device.type == "cpu"  # this opens the process group, if nothing has
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
