"""The largest micro-batch, tried before training, so that a memory that is too small shows at once."""

from typing import Any

import torch
from accelerate.utils import DistributedType


def try_pass(trainer: Any, rows: list[dict[str, Any]]) -> int:
    """Forward and backward of one micro-batch whose completions all have the full length; nothing is changed.

    Under DeepSpeed the forward pass alone: its engine takes every backward pass for a part of a step.

    Args:
        trainer: a `SharedPrefixGRPOTrainer` that shares the prefix.
        rows: the prompts, as many as a micro-batch holds.

    Returns:
        Tokens that went through the model.
    """
    assert trainer.shared_prefix, "stock TRL's rows are tried by their first step"
    group, length = trainer.num_generations, int(trainer.max_completion_length or 1)
    trainer.current_gradient_accumulation_steps = 1
    prompts = trainer._buffered_prompts["train"] = trainer._encode_rows(rows)
    ordinary = int(prompts.ids[0, -1])  # the end of a chat template's opening: text, never an image
    shape = (len(rows), group, length)
    ids = prompts.ids.new_full(shape, ordinary)
    values = {"completion_ids": ids, "completion_mask": torch.ones_like(ids)}
    values["advantages"] = torch.ones(shape[:2], device=ids.device)
    if trainer.beta:
        values["ref_per_token_logps"] = torch.zeros(shape, device=ids.device)
    numbers = torch.arange(len(rows), device=ids.device)
    inputs = values | {"prompt_number": numbers, "num_items_in_batch": torch.tensor(ids.numel(), device=ids.device)}
    verify, trainer._verify_next = trainer._verify_next, False
    trainer.model.train()
    with torch.random.fork_rng():
        loss = trainer._compute_loss(trainer.model_wrapped, inputs)
        if trainer.accelerator.distributed_type != DistributedType.DEEPSPEED:
            trainer.accelerator.backward(loss)
    trainer.model_wrapped.zero_grad()
    trainer._verify_next = verify
    trainer._metrics["train"].clear()
    trainer.meter.clear()
    return int(prompts.mask.sum()) - len(rows) + ids.numel()
