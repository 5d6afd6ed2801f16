"""A pass over the largest micro-batch before training, so that a lack of memory shows at once."""

from typing import Any

import torch
from accelerate.utils import DistributedType


def try_pass(trainer: Any, rows: list[dict[str, Any]]) -> int:
    """Run forward and backward of one micro-batch whose completions all have full length; weights do not change.

    Under DeepSpeed only the forward pass, because its engine counts every backward pass as part of a step.

    Args:
        trainer: a `SharedPrefixGRPOTrainer` that shares the prefix.
        rows: prompts of one micro-batch.

    Returns:
        Number of tokens computed.
    """
    assert trainer.shared_prefix, "without the shared prefix there is no trial pass"
    group, length = trainer.num_generations, int(trainer.max_completion_length or 1)
    trainer.current_gradient_accumulation_steps = 1
    prompts = trainer._buffered_prompts["train"] = trainer._encode_rows(rows)
    text_token = int(prompts.ids[0, -1])  # the last token of the chat template, never an image
    shape = (len(rows), group, length)
    ids = prompts.ids.new_full(shape, text_token)
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
