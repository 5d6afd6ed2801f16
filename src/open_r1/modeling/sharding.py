"""Whether weights are sharded over the processes (ZeRO-3, FSDP), and sharding on CPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers.integrations import is_deepspeed_zero3_enabled


def weights_are_sharded() -> bool:
    """Whether computing a layer needs all processes, which then must make the same calls in the same order."""
    return is_deepspeed_zero3_enabled() or uses_fsdp()


def uses_fsdp() -> bool:
    """Whether this run uses FSDP: `accelerate launch` sets the variable, or accelerate itself with `--fsdp`."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


@contextmanager
def unsharded_loading() -> Iterator[None]:
    """Within the block models are made with full weights in this process alone, even under DeepSpeed.

    Under ZeRO-3 it would otherwise shard them over the processes, all of which would have to load together.
    """
    from transformers.integrations import deepspeed

    # a private name of transformers 5.17; tests/checkpoints/test_read_back.py pins it
    reference = deepspeed._hf_deepspeed_config_weak_ref
    settings = None if reference is None else reference()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if settings is not None:
            deepspeed.set_hf_deepspeed_config(settings)


def gathered_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, weight) of every parameter, gathered one at a time; under ZeRO-3 and FSDP all processes must iterate.

    A gathered weight is valid until the next iteration.
    """
    for name, weight in model.named_parameters():
        if hasattr(weight, "ds_id"):  # ZeRO-3
            import deepspeed

            with deepspeed.zero.GatheredParameters([weight]):
                yield name, weight.detach()
        elif hasattr(weight, "full_tensor"):  # FSDP
            yield name, weight.full_tensor().detach()
        else:  # a quantized weight keeps its class
            yield name, weight if hasattr(weight, "quant_state") else weight.detach()


def shard_on_cpu(training: Any) -> None:
    """Let accelerate shard on CPUs too, so that a recipe can be tried without GPUs.

    accelerate 1.15 shards if the process state is MULTI_GPU or another accelerator; under MULTI_CPU it ignores FSDP
    silently and trains with DDP. torch's `fully_shard` works on CPUs with gloo.

    Args:
        training: complete training arguments; nothing happens on a GPU, with one process, or without FSDP.
    """
    if (uses_fsdp() or training.fsdp) and training.use_cpu and training.world_size > 1:
        assert training.device.type == "cpu"  # reading it opens the process group and sets the state
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def open_process_group(timeout: timedelta, deepspeed: bool) -> None:
    """Open gloo's process group before transformers does, which ignores the timeout on a CPU."""
    if deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        # transformers would open torch's group only, and ZeRO-3 would then run as a single process
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed as engine
        from deepspeed import ops

        # deepspeed would compile its shared-memory calls, a minute in each new environment; gloo needs none of them.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine.init_distributed("gloo", verbose=False, timeout=timeout)
    else:
        torch.distributed.init_process_group("gloo", timeout=timeout)
