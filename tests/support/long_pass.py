"""One training pass over long completions in a process of its own, for test_long_completions.py.

python tests/support/long_pass.py FOLDER GROUP LENGTH: builds a tiny Qwen2 with the published number of vocabulary rows
in FOLDER and prints as JSON what the pass took, in MiB.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.training.setup.trial_pass import try_pass
from open_r1_testbed.tiny_models import SPECIAL_TOKENS, Shape, build_model, build_tiny_checkpoint

MIB = 2**20
VOCABULARY = 151_936  # rows of Qwen2.5-VL-3B's embedding
SHAPE = Shape(hidden=64, layers=2, heads=4, mlp=128)
PROMPT = "what is it " * 30


def checkpoint(folder: Path) -> Path:
    """A tiny text model whose embedding, tied to its head, has the published rows."""
    build_tiny_checkpoint(folder, "qwen2", shape=SHAPE)
    tokenizer = load_processor(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    build_model("qwen2", SHAPE, VOCABULARY, ids, 0).save_pretrained(folder)
    return folder


def main() -> None:
    folder, group, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    model = load_model(checkpoint(folder), dtype=torch.float32)
    row = {"prompt": [{"role": "user", "content": PROMPT}], "image": None}
    trainer: Any = SharedPrefixGRPOTrainer(
        model=model,
        args=GRPOTrainingConfig(
            output_dir=str(folder / "run"),
            num_generations=group,
            max_completion_length=length,
            beta=0.0,
            report_to="none",
            disable_tqdm=True,
        ),
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        train_dataset=Dataset.from_list([row]),
        processing_class=load_processor(folder),
        open_images=lambda row: [],
        verify=False,
    )
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept_storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept_storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = try_pass(trainer, [row])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"tokens": tokens, "grown": peak - before, "kept": sum(kept_storages.values()) / MIB}
    print(json.dumps(result | {"before": before, "cpu_seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()
