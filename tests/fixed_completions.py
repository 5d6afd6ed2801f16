"""Train on completions that depend on the prompt alone, so that any number of processes can be compared.

torchrun --nproc_per_node=N tests/fixed_completions.py CHECKPOINT OUTPUT PROMPTS_PER_DEVICE ACCUMULATION
"""

import sys
from pathlib import Path
from typing import Any

import torch
from test_trainer import length_reward, make_trainer

STEPS = 2


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


def main() -> None:
    checkpoint, output, prompts, accumulation = sys.argv[1:]
    trainer = make_trainer(
        Path(checkpoint),
        Path(output),
        [0, 1, 2, 3],
        per_device_train_batch_size=int(prompts),
        gradient_accumulation_steps=int(accumulation),
        max_steps=STEPS,
    )
    trainer.reward_funcs = [length_reward]
    fixed(trainer)
    trainer.train()
    if trainer.accelerator.is_main_process:
        losses = [entry["loss"] for entry in trainer.state.log_history if "grad_norm" in entry]
        norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
        weights = {
            name: value.detach() for name, value in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
        }
        torch.save({"losses": losses, "norms": norms, "weights": weights}, Path(output) / "result.pt")


if __name__ == "__main__":
    main()
