"""Train on completions that depend on the prompt alone, so that any number of processes can be compared.

torchrun --nproc_per_node=N tests/support/fixed_completions.py CHECKPOINT OUTPUT PROMPTS ACCUMULATION STAGE TOKENS \
    WITHOUT FSDP SEVERAL

PROMPTS are those per device; STAGE is DeepSpeed's ZeRO stage, 0 for plain DDP; TOKENS bounds a forward pass
(--tokens_per_micro_batch), 0 for none; the first WITHOUT of four questions have no image; FSDP is 1
under `accelerate launch` with an FSDP configuration, which then samples too, once, in earnest. With SEVERAL 1 the
questions have six images, none, one and three, of different sizes, some of them the same.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from tiny_trainers import length_reward, make_trainer
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from open_r1.training.grpo.packed_scoring import GroupPass

STEPS = 2
RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "deepspeed"


def fixed(trainer: Any) -> None:
    """Replace sampling: completion g of a prompt is drawn with a seed made of the prompt's tokens and g."""

    def complete(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        group = trainer.num_generations
        rows = []
        for place, ids in enumerate(prompt_ids):
            random = torch.Generator().manual_seed(sum(ids) * 31 + place % group)
            length = 2 + (place % group) * 2
            rows.append(torch.randint(33, 120, (length,), generator=random).tolist())
        return rows, None

    trainer._generate_single_turn = complete


def sampled_in_earnest(trainer: Any) -> None:
    """Sample once as a training step does, one process with prompts whose completions end at once.

    A process that stopped decoding before the others would leave them waiting for its share of the weights.
    """
    prompts = trainer._encode_rows([trainer.train_dataset[trainer.accelerator.process_index]])
    config = trainer.generation_config
    config.max_new_tokens = 20
    if trainer.accelerator.process_index == 0:  # every token ends a completion
        config.eos_token_id = list(range(trainer.model.get_input_embeddings().num_embeddings))
    with trainer._set_pass(GroupPass(prompts)):
        trainer._generate_single_turn([], None, {}, None)


def gathered(trainer: Any, stage: int) -> dict[str, torch.Tensor]:
    """The trained weights, whole on every process."""
    named = list(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    if stage < 3:
        whole = [(name, value.full_tensor() if isinstance(value, DTensor) else value) for name, value in named]
        return {name: value.detach().clone() for name, value in whole}
    import deepspeed

    with deepspeed.zero.GatheredParameters([value for _, value in named]):
        return {name: value.detach().clone() for name, value in named}


def main() -> None:
    checkpoint, output, *numbers = sys.argv[1:]
    prompts, accumulation, stage, budget, without, fsdp, several = (int(number) for number in numbers)
    one_each: list[Any] = [None if index < without else index for index in range(4)]
    extra: dict[str, Any] = {"deepspeed": str(RECIPES / f"zero{stage}.json")} if stage else {}
    if budget:
        extra["tokens_per_micro_batch"] = budget
    trainer = make_trainer(
        Path(checkpoint),
        Path(output),
        [[0, 1, 2, 3, 1, 0], [], [2], [1, 3, 2]] if several else one_each,
        per_device_train_batch_size=prompts,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
        **extra,
    )
    trainer.reward_funcs = [length_reward]
    sampling = trainer._generate_single_turn
    fixed(trainer)
    trainer.train()
    engine = type(trainer.model_wrapped).__module__.split(".")[0]
    if fsdp:
        assert issubclass(type(trainer.model_wrapped), FSDPModule)
        engine = "fsdp2"
        trainer._generate_single_turn = sampling
        sampled_in_earnest(trainer)
    trained = gathered(trainer, stage)
    if trainer.accelerator.is_main_process:
        losses = [entry["loss"] for entry in trainer.state.log_history if "grad_norm" in entry]
        norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
        result = {"losses": losses, "norms": norms, "weights": trained, "engine": engine}
        if stage:
            result["stage"] = trainer.model_wrapped.zero_optimization_stage()
        torch.save(result, Path(output) / "result.pt")


if __name__ == "__main__":
    main()
