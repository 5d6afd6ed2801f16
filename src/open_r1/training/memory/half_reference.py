"""The frozen reference of the KL term in half the memory, with the same log-probabilities to the bit.

Under `--bf16` autocast rounds every matrix to bfloat16 before it multiplies. What is rounded each time anyway can be
stored rounded. Norms and biases are not rounded and stay float32, and so does the stream between the layers.
"""

from typing import Any

import torch


def shrink_reference(trainer: Any) -> None:
    """Store the reference of a GRPO trainer in bfloat16 where this changes no number that it computes.

    Not with DeepSpeed or FSDP, which choose a number format themselves, and not with `--sync_ref_model`, which adds
    small parts of the policy to it.
    """
    arguments, reference = trainer.args, trainer.ref_model
    if reference is None or not arguments.bf16 or arguments.sync_ref_model or arguments.cast_lm_head_to_fp32:
        return
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return
    store_in_half(reference)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.no_grad()
def store_in_half(model: Any) -> None:
    """Store the matrices of a frozen model in bfloat16; it must then be run under bfloat16 autocast alone.

    The table of the input embeddings is looked up and not multiplied. It is stored in bfloat16 where every entry is a
    bfloat16 number, as in published checkpoints, and what is looked up is float32 as before.

    Args:
        model: of transformers, in float32.
    """
    embeddings = model.get_input_embeddings()
    table = embeddings.weight
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv3d):
            weight = module.weight
            if weight is not table and weight.dtype == torch.float32:
                weight.data = weight.data.bfloat16()
    # Gemma's embeddings multiply what they look up by a number that they round as their table is
    if type(embeddings) is not torch.nn.Embedding or table.dtype != torch.float32:
        return
    rounded = table.data.bfloat16()
    if torch.equal(rounded.float(), table.data):  # the same numbers, whatever the format
        table.data = rounded
        embeddings.register_forward_hook(lambda _module, _arguments, looked_up: looked_up.float())
