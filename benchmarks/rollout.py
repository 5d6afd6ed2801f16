"""What sampling a group costs: one prefill per prompt (ours) against one per completion (stock), in turn in one run.

python benchmarks/rollout.py                        # a tiny Qwen2.5-VL on the CPU, one thread
python benchmarks/rollout.py --config CONFIG_DIR --processor CHECKPOINT    # full size, random weights, on a GPU

Ours is the sampler of training on a model as the trainer prepares it, stock is transformers' `generate` with the same
settings. Before anything is timed, both must sample the same tokens from the same seed (in float32; in bfloat16 the
share that agrees is printed).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from grpo_step import PROBLEM, TINY, full_size, in_turn, sampling_of
from PIL import Image
from transformers import GenerationConfig

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.common.provenance import hardware, package_versions
from open_r1.modeling.gpu_kernels import choose_attention_kernels
from open_r1.modeling.prompt_batch import PromptBatch, prompt_positions
from open_r1.modeling.segment_attention import prepare_model
from open_r1.training.grpo.rollout import GroupSampler
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.tiny_models import build_tiny_checkpoint


def encode(processor: Any, prompts: int, device: torch.device) -> PromptBatch:
    """Prompts with a 384 x 384 image each."""
    text = processor.apply_chat_template(
        build_messages(PROBLEM, Mode.NOTHINK), tokenize=False, add_generation_prompt=True
    )
    opened = [Image.effect_noise((384, 384), 40 + index).convert("RGB") for index in range(prompts)]
    inputs = processor(text=[text] * prompts, images=opened, padding=True, padding_side="left", return_tensors="pt")
    inputs = inputs.to(device)
    vision = {name: inputs[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    return PromptBatch(inputs["input_ids"], inputs["attention_mask"], [1] * prompts, vision)


@torch.no_grad()
def stock(model: Any, prompts: PromptBatch, group: int, config: GenerationConfig) -> torch.Tensor:
    """(B * G, C) tokens with every prompt and image repeated, as stock trainers sample."""
    repeated = prompts.select([index for index in range(len(prompts.ids)) for _ in range(group)])
    positions, _ = prompt_positions(model, repeated)
    tokens = model.generate(
        input_ids=repeated.ids,
        attention_mask=repeated.mask,
        position_ids=positions,
        **repeated.model_inputs(),
        generation_config=config,
    )
    return tokens[:, repeated.ids.size(1) :]


def measure(models: dict[str, Any], prompts: PromptBatch, group: int, length: int, rounds: int) -> dict[str, Any]:
    """Agreement and time of one setting.

    Args:
        models: the model as transformers built it ("stock"), and as the trainer prepares it ("ours").
        prompts: B prompts.
        group: completions per prompt.
        length: tokens of a completion.
        rounds: how often each is timed.
    """
    model = models["stock"]
    config = sampling_of(model, length)
    drawn = []
    sample_groups = GroupSampler().sample_groups
    for name, way in (("stock", stock), ("ours", sample_groups)):
        torch.manual_seed(0)
        drawn.append(way(models[name], prompts, group, config))
    agreement = (drawn[0] == drawn[1]).float().mean().item()
    if model.dtype == torch.float32 and agreement < 1:
        raise SystemExit(f"error: only {agreement:.1%} of the sampled tokens agree: the speeds are not comparable")
    times = in_turn(
        lambda: stock(model, prompts, group, config),
        lambda: sample_groups(models["ours"], prompts, group, config),
        rounds,
    )
    return {"group": group, "length": length, "same_tokens": agreement, **times}


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 75], help="completion tokens")
    parser.add_argument("--prompts", type=int, default=1, help="prompts per call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; torchrun gives each process one")
    parser.add_argument("--config", type=Path, help="folder with a config.json: full size, random weights")
    parser.add_argument("--processor", type=Path, help="folder with the processor for --config")
    parser.add_argument("--output", type=Path, help="also write everything to this JSON file")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    choose_attention_kernels()
    with tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "checkpoint"
        if flags.config:
            full_size(flags.config, checkpoint, flags.processor)
        else:
            build_tiny_checkpoint(checkpoint, "qwen2_5_vl", shape=TINY)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        models = {name: load_model(checkpoint, dtype=dtype).to(device).eval() for name in ("stock", "ours")}
        prepare_model(models["ours"])
        prompts = encode(load_processor(checkpoint), flags.prompts, device)
        print(f"{hardware()}, {torch.get_num_threads()} threads, prompt of {prompts.ids.size(1)} tokens")
        print(json.dumps(package_versions()))
        print("   G tokens  same      wall       CPU    stock ms   ours ms")
        results = []
        for length in flags.lengths:
            for group in flags.groups:
                result = measure(models, prompts, group, length, flags.rounds)
                results.append(result)
                print(
                    f"{group:>4} {length:>6} {result['same_tokens']:>5.0%} {result['ratio']:>8.2f}x "
                    f"{result['cpu_ratio']:>8.2f}x {result['stock_ms']:>11.0f} {result['ours_ms']:>9.0f}",
                    flush=True,
                )
        if flags.output:
            flags.output.write_text(json.dumps({"versions": package_versions(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
