"""What sharing the prefix saves: ours and stock TRL in turn, in one run, medians of the ratios.

python benchmarks/grpo_step.py                        # a tiny Qwen2.5-VL on the CPU, one thread (--threads 2: both)
python benchmarks/grpo_step.py --config CONFIG_DIR    # full size with random weights on a GPU, bfloat16

`pass` is forward and backward of one group in training; `step` is a whole optimizer step of the trainer: rows,
image processing, sampling, rewards, reference log-probabilities, forward, backward, optimizer. Before anything is
timed both ways are held against each other. A prompt is a 384 x 384 image (196 tokens), with --images further ones of
other sizes, and about 110 text tokens.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from PIL import Image
from transformers import GenerationConfig

from open_r1.checkpoints.families import forbidden_token_ids
from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.common.provenance import hardware, package_versions
from open_r1.modeling.gpu_kernels import choose_attention_kernels
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.tiny_models import Shape, build_tiny_checkpoint

# As large as the measurements of the prototype: 4 layers, hidden 128, 784 patches per image.
TINY = Shape(
    hidden=128, layers=4, heads=2, mlp=344, vision_hidden=64, vision_depth=2, vision_heads=4, longest_edge=401408
)
SIZES = [(384, 384), (384, 196), (196, 384), (280, 280), (384, 308), (168, 336)]  # of the images of one prompt
PROBLEM = (
    "Which of the following abnormalities can be seen in this image of the upper abdomen of a patient who came "
    "with pain? A)acute inflammation of the gallbladder, B)a simple cyst of the left kidney, C)no finding, D)ascites"
)


@dataclass
class Timing:
    """Wall and CPU seconds of one call."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Timing:
    """Run `work` once, the GPU's queue included."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(stock: Callable[[], object], ours: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median ratios stock / ours over `rounds` after one warm-up, and the medians themselves in milliseconds."""
    pairs = [(timed(stock), timed(ours)) for _ in range(rounds + 1)][1:]
    return {
        "ratio": statistics.median(a.wall / b.wall for a, b in pairs),
        "cpu_ratio": statistics.median(a.cpu / b.cpu for a, b in pairs),
        "stock_ms": 1e3 * statistics.median(a.wall for a, _ in pairs),
        "ours_ms": 1e3 * statistics.median(b.wall for _, b in pairs),
    }


def saved_bytes(work: Callable[[], object], model: Any) -> int:
    """Bytes that autograd keeps for the backward pass of `work`, weights left out, shared storage counted once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes_by_pointer: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes_by_pointer[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    del result
    return sum(sizes_by_pointer.values())


class Bench:
    """One model in one trainer, which can take either way: the ways differ by a switch and nothing else."""

    def __init__(
        self, checkpoint: Path, group: int, length: int, prompts: int, folder: Path, bf16: bool, images: int = 1
    ) -> None:
        self.group, self.length, self.prompts, self.stock_micro_batches = group, length, prompts, 1
        opened = [Image.effect_noise(SIZES[place % len(SIZES)], 60).convert("RGB") for place in range(images)]
        rows = Dataset.from_dict({"problem": [PROBLEM] * 64, "image": list(range(64))})

        def add_prompt(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            return batch | {"prompt": [build_messages(problem, Mode.NOTHINK, images) for problem in batch["problem"]]}

        self.trainer: Any = SharedPrefixGRPOTrainer(
            model=load_model(checkpoint, dtype=torch.bfloat16 if bf16 else torch.float32),
            args=GRPOTrainingConfig(
                output_dir=str(folder / f"{group}-{length}"),
                per_device_train_batch_size=prompts,
                num_generations=group,
                max_completion_length=length,
                generation_kwargs={"min_new_tokens": length},
                max_steps=10**6,
                save_strategy="no",
                disable_tqdm=True,
                bf16=bf16,
            ),
            reward_funcs=[varied_reward],
            train_dataset=rows.with_transform(add_prompt),
            processing_class=load_processor(checkpoint),
            open_images=lambda row: opened,
        )
        self.trainer.create_optimizer_and_scheduler(num_training_steps=10**6)
        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer.model.train()
        self.trainer.model.to(self.trainer.accelerator.device)
        self.rows = [row for row in self.trainer.train_dataset.select(range(prompts)) for _ in range(group)]

    def resize(self, group: int, length: int, prompts: int, stock_micro_batches: int = 1) -> None:
        """Go on with another size, so that a large model is loaded once; what fits at once differs by the way."""
        trainer, self.stock_micro_batches = self.trainer, stock_micro_batches
        self.group, self.length, self.prompts = group, length, prompts
        trainer.num_generations = trainer.num_generations_eval = trainer.args.num_generations = group
        trainer.args.per_device_train_batch_size = trainer.args.generation_batch_size = group * prompts
        trainer.max_completion_length = length
        trainer.generation_config.max_new_tokens = trainer.generation_config.min_new_tokens = length
        self.rows = [row for row in trainer.train_dataset.select(range(prompts)) for _ in range(group)]

    def use(self, shared: bool) -> None:
        """Take our way or stock TRL's."""
        self.trainer.shared_prefix = shared
        for name in ("steps_per_generation", "gradient_accumulation_steps"):
            setattr(self.trainer.args, name, self.micro_batches)
        self.trainer.current_gradient_accumulation_steps = self.micro_batches
        self.trainer._step, self.trainer._buffered_inputs = 0, None

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step in the way that is in use."""
        return 1 if self.trainer.shared_prefix else self.stock_micro_batches

    def batch(self, shared: bool) -> dict[str, Any]:
        """A scored micro-batch in the layout of one way, with the same completions for both."""
        self.use(shared)
        torch.manual_seed(0)
        return self.trainer._generate_and_score_completions(self.rows)

    def micro_batches_of(self, shared: bool) -> list[dict[str, Any]]:
        """The scored micro-batches of a step in the layout of one way."""
        self.use(shared)
        self.trainer._prepare_inputs(self.rows)
        return self.trainer._buffered_inputs

    def loss(self, shared: bool, batch: dict[str, Any]) -> torch.Tensor:
        """Forward of one micro-batch."""
        self.use(shared)
        return self.trainer._compute_loss(self.trainer.model, batch)

    def training_pass(self, shared: bool, *batches: dict[str, Any]) -> None:
        """Forward and backward of all micro-batches."""
        self.trainer.model.zero_grad(set_to_none=False)
        for batch in batches:
            self.loss(shared, batch).backward()

    def step(self, shared: bool) -> None:
        """A whole optimizer step from raw rows."""
        self.use(shared)
        for _ in range(self.micro_batches):
            self.trainer.training_step(self.trainer.model, self.rows, None)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()

    def agreement(self) -> dict[str, float]:
        """Both ways on the same completions: difference of the losses, and 1 - cosine of the gradients.

        The completions are drawn at random: sampled ones may differ by a token, since the ways round differently.
        """
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(1000, 100_000, (len(self.rows), self.length), generator=generator)
        drawn %= self.trainer.model.get_input_embeddings().num_embeddings // 2
        self.trainer._generate_single_turn = lambda *_, **__: (drawn.tolist(), None)
        passes = []
        for shared in (False, True):
            batch = self.batch(shared)
            self.trainer.model.zero_grad(set_to_none=True)
            loss = self.loss(shared, batch)
            loss.backward()
            grads = [p.grad.flatten().double().cpu() for p in self.trainer.model.parameters() if p.grad is not None]
            passes.append((loss.item(), torch.cat(grads)))
        del self.trainer._generate_single_turn
        (stock_loss, stock), (our_loss, ours) = passes
        return {
            "loss_difference": abs(stock_loss - our_loss),
            "one_minus_cosine": 1 - torch.cosine_similarity(stock, ours, dim=0).item(),
        }


def sampling_of(model: Any, length: int) -> GenerationConfig:
    """Samples of exactly `length` tokens."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=length,
        min_new_tokens=length,
        pad_token_id=0,
        eos_token_id=model.config.get_text_config().eos_token_id or 0,
        suppress_tokens=forbidden_token_ids(model.config) or None,
    )


def varied_reward(completions: list[Any], **_: Any) -> list[float]:
    """A reward with spread in every group."""
    return [float(index % 3) for index in range(len(completions))]


def measure(bench: Bench, rounds: int, whole_step: bool) -> dict[str, Any]:
    """All figures of one setting."""
    result: dict[str, Any] = {"group": bench.group, "length": bench.length, **bench.agreement()}
    stock, ours = bench.batch(False), bench.batch(True)
    result["pass"] = in_turn(lambda: bench.training_pass(False, stock), lambda: bench.training_pass(True, ours), rounds)
    saved = [
        saved_bytes(lambda: bench.loss(False, stock), bench.trainer.model),
        saved_bytes(lambda: bench.loss(True, ours), bench.trainer.model),
    ]
    result["saved_activations_ratio"] = saved[0] / saved[1]
    result["saved_mib"] = [size / 2**20 for size in saved]
    if whole_step:
        result["step"] = in_turn(lambda: bench.step(False), lambda: bench.step(True), rounds)
    return result


def line(result: dict[str, Any]) -> str:
    """One setting as a row of the table."""
    step = result.get("step")
    return (
        f"{result['group']:>4} {result['length']:>6} {result['one_minus_cosine']:>10.1e} "
        f"{result['pass']['ratio']:>8.2f}x {result['pass']['cpu_ratio']:>8.2f}x "
        f"{result['pass']['ours_ms']:>9.0f} {result['saved_activations_ratio']:>8.1f}x "
        + (f"{step['ratio']:>8.2f}x {step['cpu_ratio']:>8.2f}x {step['ours_ms']:>9.0f}" if step else "")
    )


def full_size(config: Path, folder: Path, processor: Path | None) -> Path:
    """A checkpoint with the weights' shapes of `config` and random values, in bfloat16."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    if processor is None:
        raise SystemExit("error: --config needs --processor, a folder with the tokenizer and image processor to use")
    shape = AutoConfig.from_pretrained(config)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(shape, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(processor).save_pretrained(folder)
    return folder


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 128], help="completion tokens")
    parser.add_argument("--prompts", type=int, default=1, help="prompts per step")
    parser.add_argument("--images", type=int, default=1, help="images per prompt, the further ones of other sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step_lengths", type=int, nargs="*", default=[10], help="lengths to time whole steps at")
    parser.add_argument("--config", type=Path, help="folder with a config.json: full size, random weights")
    parser.add_argument("--processor", type=Path, help="folder with the processor for --config")
    parser.add_argument("--output", type=Path, help="also write everything to this JSON file")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; torchrun gives each process one")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    choose_attention_kernels()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bf16 = torch.cuda.is_available()
        checkpoint = folder / "checkpoint"
        if flags.config:
            full_size(flags.config, checkpoint, flags.processor)
        else:
            build_tiny_checkpoint(checkpoint, "qwen2_5_vl", shape=TINY)
        print(f"{hardware()}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
        print(json.dumps(package_versions()))
        print("   G tokens   1-cos   pass wall  pass CPU   ours ms  memory   step wall  step CPU   ours ms")
        results = []
        for length in flags.lengths:
            for group in flags.groups:
                bench = Bench(checkpoint, group, length, flags.prompts, folder, bf16, flags.images)
                results.append(measure(bench, flags.rounds, length in flags.step_lengths))
                print(line(results[-1]), flush=True)
                del bench
        if flags.output:
            flags.output.write_text(json.dumps({"versions": package_versions(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
