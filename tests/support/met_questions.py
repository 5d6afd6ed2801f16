"""Train two epochs under a curriculum and write down which questions this process meets, for test_curriculum.py.

torchrun --nproc_per_node=2 tests/support/met_questions.py CHECKPOINT FOLDER CURRICULUM
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.training.setup.curriculum import Curriculum, Order

RATES = (0.0, 0.9, 0.5, 0.1, 0.8, 0.6, 0.2, 0.7, 0.4)
WINDOW = 4
SEED = 7


def order_of(curriculum: str) -> Order:
    """9 questions, of which 0, 3 and 6 are hard."""
    hard = tuple(rate <= 0.25 for rate in RATES)
    return Order(Curriculum(curriculum), RATES, hard, WINDOW, SEED, 0.25 if curriculum == "mixed" else 0.0)


def main() -> None:
    checkpoint, folder, curriculum = sys.argv[1:]
    met: list[int] = []

    def reward(completions: list[Any], number: list[int], **_: Any) -> list[float]:
        met.extend(number)
        return [float(place % 2) for place in range(len(completions))]

    rows = {"prompt": [[{"role": "user", "content": f"Question {n}"}] for n in range(len(RATES))]}
    training = GRPOTrainingConfig(
        output_dir=folder,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2 if "RANK" in os.environ else 4,  # one window either way
        num_generations=2,
        max_completion_length=1,
        num_train_epochs=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
        beta=0.0,
    )
    trainer = SharedPrefixGRPOTrainer(
        model=load_model(checkpoint),
        args=training,
        reward_funcs=[reward],
        train_dataset=Dataset.from_dict({**rows, "number": list(range(len(RATES)))}),
        processing_class=load_processor(checkpoint),
        open_images=lambda row: [],
        order=order_of(curriculum),
    )
    trainer.train()
    Path(folder, f"met-{training.process_index}.json").write_text(json.dumps(met))


if __name__ == "__main__":
    main()
