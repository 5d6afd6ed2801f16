"""Whether the weights are spread over the processes (ZeRO-3, FSDP), and FSDP where there is no GPU."""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers.integrations import is_deepspeed_zero3_enabled


def weights_are_sharded() -> bool:
    """Whether a process needs the others to compute any layer: all must then make the same calls in the same order."""
    return is_deepspeed_zero3_enabled() or fsdp_is_asked()


def fsdp_is_asked() -> bool:
    """Whether this is an FSDP run: `accelerate launch` tells so, and accelerate itself where `--fsdp` was given."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def whole_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, weight) of every parameter, gathered one at a time; under ZeRO-3 and FSDP all processes must iterate.

    A weight is good until the next one is asked for.
    """
    for name, weight in model.named_parameters():
        if hasattr(weight, "ds_id"):  # ZeRO-3
            import deepspeed

            with deepspeed.zero.GatheredParameters([weight]):
                yield name, weight.detach()
        elif hasattr(weight, "full_tensor"):  # FSDP
            yield name, weight.full_tensor().detach()
        else:  # a packed one keeps its class
            yield name, weight if hasattr(weight, "quant_state") else weight.detach()


def shard_on_cpu(training: Any) -> None:
    """Have accelerate really shard on CPUs, so that a recipe can be tried out.

    accelerate 1.15 shards where the process state says MULTI_GPU or another accelerator; under MULTI_CPU it drops FSDP
    without a word and trains plain DDP. torch's own `fully_shard` works on CPUs with gloo.

    Args:
        training: finished training arguments; nothing happens on a GPU, with one process, or without FSDP.
    """
    if (fsdp_is_asked() or training.fsdp) and training.use_cpu and training.world_size > 1:
        assert training.device.type == "cpu"  # asking opens the process group and writes that state
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def open_process_group(timeout: timedelta, deepspeed: bool) -> None:
    """Open gloo's process group before transformers does, which on a CPU leaves the timeout out."""
    if deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        # transformers opens torch's group alone, and ZeRO-3 then believes to be one process
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed as engine
        from deepspeed import ops

        # It would compile its shared-memory calls first, a minute in each new environment, for nothing that gloo
        # does not do here.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine.init_distributed("gloo", verbose=False, timeout=timeout)
    else:
        torch.distributed.init_process_group("gloo", timeout=timeout)
