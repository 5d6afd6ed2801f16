"""One GPU, one table: is it right there, and how fast; this project beside stock TRL and a plain generate loop.

python benchmarks/gpu_check.py --config CONFIG_DIR --processor PROCESSOR_DIR --output gpu_check.json
python benchmarks/gpu_check.py --parts correctness step --config ...

CONFIG_DIR holds a published config.json (weights are random, of the published shapes), PROCESSOR_DIR the processor.
Without --config a tiny model is measured, on a CPU too: that shows that the script works and nothing about speed.

Each part runs in a process of its own under its own time limit, five minutes in all; a part that fails or is cut off
leaves the others standing. Exit status 1 says that a part failed.
"""

import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WANDB_MODE", "offline")

import torch

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.common.provenance import hardware, package_versions
from open_r1.modeling.gpu_kernels import choose_attention_kernels

MARK = "ROW "  # begins the lines of a part's output that hold its figures
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What every part is told."""

    checkpoint: Path
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return torch.cuda.is_available()

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.on_gpu else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.on_gpu else torch.float32


def milliseconds(work: Callable[[], object], rounds: int = 3) -> float:
    """Median wall time of `work` after one warm-up, the GPU's queue included."""
    from grpo_step import timed

    return round(1e3 * statistics.median([timed(work).wall for _ in range(rounds + 1)][1:]), 3)


def peak_gib(work: Callable[[], object]) -> float | None:
    """GiB that torch has allocated at most during `work`; None without a GPU."""
    if not torch.cuda.is_available():
        work()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def kernels(work: Callable[[], object]) -> Row:
    """Kernels that one call launches, and milliseconds that the GPU was busy with them."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
    print(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=20), file=sys.stderr)  # into the log
    return {"kernels": len(events), "gpu_busy_ms": round(sum(event.device_time for event in events) / 1e3, 2)}


def ceilings(setting: Setting) -> list[Row]:
    """What this card can do at most: the yardstick of the other parts."""
    size, count = (8192, 2**30) if setting.on_gpu else (512, 2**22)
    left, right = (torch.randn(size, size, device=setting.device, dtype=setting.dtype) for _ in range(2))
    source = torch.randn(count, device=setting.device)
    target = torch.empty_like(source)
    return [
        {
            "matmul_tflops": round(2 * size**3 / milliseconds(lambda: left @ right, 10) / 1e9, 2),
            "copy_tb_per_s": round(2 * source.nbytes / milliseconds(lambda: target.copy_(source), 10) / 1e9, 3),
        }
    ]


def correctness(setting: Setting) -> list[Row]:
    """Ours against stock TRL on a tiny model: gradients of the same completions, and completions of the same seed."""
    from grpo_step import TINY, Bench

    from open_r1_testbed.tiny_models import build_tiny_checkpoint

    tiny = build_tiny_checkpoint(setting.folder / "tiny", "qwen2_5_vl", shape=TINY)
    for half in (False, True) if setting.on_gpu else (False,):
        limit = 1e-2 if half else 1e-5  # of 1 - cosine: bfloat16 rounds at 2^-9, float32 at 2^-24
        for group, length in ((4, 10), (8, 64)) if setting.on_gpu else ((4, 10),):
            row: Row = {"dtype": "bfloat16" if half else "float32", "group": group, "length": length}
            agreement = Bench(tiny, group, length, 2, setting.folder, half).agreement()
            row |= {name: float(f"{value:.2e}") for name, value in agreement.items()}
            if not row["one_minus_cosine"] < limit:
                raise SystemExit(f"gradients differ from stock TRL's: {row}, 1 - cosine may be {limit} at most")
            print(MARK + json.dumps(row), flush=True)
    return [same_tokens(setting, tiny)]


def same_tokens(setting: Setting, checkpoint: Path) -> Row:
    """Share of tokens that are those of `generate`, drawn with the same seed in float32 at the third call."""
    from grpo_step import sampling_of
    from rollout import encode, stock

    from open_r1.checkpoints.loading import load_model
    from open_r1.checkpoints.processors import load_processor
    from open_r1.training.grpo.rollout import GroupSampler

    model: Any = load_model(checkpoint, dtype=torch.float32).to(setting.device).eval()
    prompts, config = encode(load_processor(checkpoint), 4, setting.device), sampling_of(model, 40)
    config.min_new_tokens = 9  # then rows end at any time
    config.eos_token_id = list(range(20, 50))
    sampler = GroupSampler()
    for _ in range(3):
        torch.manual_seed(0)
        drawn = sampler.sample_groups(model, prompts, 8, config)
    torch.manual_seed(0)
    width = min(drawn.size(1), (expected := stock(model, prompts, 8, config)).size(1))
    share = (drawn[:, :width] == expected[:, :width]).float().mean().item()
    if share < 0.98:
        raise SystemExit(f"only {share:.1%} of the tokens are those of transformers")
    return {"same_tokens": round(share, 4), "tokens": expected.numel()}


def rollout(setting: Setting) -> list[Row]:
    """Milliseconds per token of sampling 8 completions of each of 4 prompts, without the prefill; fewer on a CPU."""
    from grpo_step import sampling_of
    from rollout import encode, stock

    from open_r1.checkpoints.loading import load_model
    from open_r1.checkpoints.processors import load_processor
    from open_r1.modeling.segment_attention import prepare_model
    from open_r1.training.grpo.rollout import GroupSampler

    model: Any = load_model(setting.checkpoint, dtype=setting.dtype).to(setting.device).eval()
    count, group, short, long = (4, 8, 8, 40) if setting.on_gpu else (1, 4, 3, 6)
    prompts = encode(load_processor(setting.checkpoint), count, setting.device)
    for name, sample in (("stock", stock), ("ours", GroupSampler().sample_groups)):
        if name == "ours":
            prepare_model(model)

        def run(length: int, sample: Any = sample) -> Callable[[], object]:
            return lambda: sample(model, prompts, group, sampling_of(model, length))

        few, many = milliseconds(run(short), 2), milliseconds(run(long), 2)
        token = (many - few) / (long - short)
        row = {"way": name, "prompts": count, "group": group, "prompt_tokens": prompts.ids.size(1)}
        row |= {"ms_per_token": round(token, 2), "prefill_ms": round(few - short * token, 1)}
        row |= {"peak_gib": peak_gib(run(long))} | kernels(run(short))
        print(MARK + json.dumps(row), flush=True)
    return []


def step(setting: Setting) -> list[Row]:
    """Training passes and whole steps in bfloat16 (float32 on a CPU), ours and stock TRL in one trainer."""
    from grpo_step import Bench

    # group, tokens, prompts, and the micro-batches in which stock's rows of 430 tokens fit an 80 GB card
    sizes = [(8, 10, 8, 8), (4, 10, 1, 1), (8, 256, 1, 1)] if setting.on_gpu else [(4, 6, 2, 2)]
    bench = Bench(setting.checkpoint, *sizes[0][:3], setting.folder, setting.on_gpu)
    for size in sizes:
        bench.resize(*size)
        print(MARK + json.dumps(one_step(bench)), flush=True)  # what is measured stays, if the next size is cut off
        bench.trainer.model.zero_grad(set_to_none=True)
        gc.collect()
        if setting.on_gpu:
            torch.cuda.empty_cache()
    return []


def one_step(bench: Any) -> Row:
    """Training passes and whole steps of one size."""
    from grpo_step import in_turn, timed

    from open_r1.training.grpo.step_meter import peak_flops

    row: Row = {"group": bench.group, "length": bench.length, "prompts": bench.prompts}
    row["stock_micro_batches"] = bench.stock_micro_batches
    ours = bench.micro_batches_of(True)

    def run_ours() -> None:
        bench.training_pass(True, *ours)

    row |= {
        "ours_pass_ms": round(milliseconds(run_ours, 2), 1),
        "ours_peak_gib": peak_gib(run_ours),
        **kernels(run_ours),
    }
    meter = bench.trainer.meter
    meter.flush()
    with meter.phase("step"):
        timed(run_ours)
    row |= {name: round(value, 3) for name, value in meter.flush(peak_flops()).items() if name == "mfu"}
    try:
        stock = bench.micro_batches_of(False)

        def run_stock() -> None:
            bench.training_pass(False, *stock)

        row["pass_ratio"] = round(in_turn(run_stock, run_ours, 2)["ratio"], 2)
        row["stock_peak_gib"] = peak_gib(run_stock)
        if bench.length <= 10:
            whole = in_turn(lambda: bench.step(False), lambda: bench.step(True), 2)
            row |= {"step_ratio": round(whole["ratio"], 2), "ours_step_ms": round(whole["ours_ms"], 1)}
    except torch.cuda.OutOfMemoryError as error:
        row["stock_out_of_memory"] = str(error)[:200]
    return row


def evaluation(setting: Setting) -> list[Row]:
    """Questions per second of eval/infer.py's loop and of a plain loop over `generate`, with 8 tokens for an answer."""
    from infer import Clock, Ours, Work, begin, plain_loop

    from open_r1.checkpoints.processors import load_processor
    from open_r1.vocabulary.labels import Modality
    from open_r1_testbed.phantoms import make_phantoms

    questions, batch, tokens = (256, 64, 8) if setting.on_gpu else (8, 4, 4)
    make_phantoms(setting.folder / "phantoms", train=1, test=-(-questions // len(Modality)))
    work = Work(setting.checkpoint, setting.folder / "phantoms", questions, 1, batch, setting.device.type)
    ours, output = Ours(work), setting.folder / "out.jsonl"
    clocks: list[Clock] = []

    def run_ours() -> None:
        begin(output)
        clocks.append(ours(tokens, output)[1])

    rate = len(ours.rows) / milliseconds(run_ours, 1) * 1e3
    row: Row = {"questions": len(ours.rows), "batch": batch, "questions_per_s": round(rate, 1)}
    row |= {name: round(seconds, 2) for name, seconds in clocks[-1].seconds.items()}
    row["peak_gib"] = peak_gib(run_ours)
    print(MARK + json.dumps(row), flush=True)
    few, model, processor = ours.rows.select(range(batch)), work.model(), load_processor(setting.checkpoint)
    plain = batch / milliseconds(lambda: plain_loop(model, processor, few, batch, tokens, Clock()), 1) * 1e3
    return [{"questions": batch, "batch": batch, "plain_questions_per_s": round(plain, 1)}]


def vllm(setting: Setting) -> list[Row]:
    """Where vLLM is installed: eval/infer.py --backend vllm on drawn images, start-up included."""
    if importlib.util.find_spec("vllm") is None:
        return [{"note": "vLLM is not installed"}]
    from open_r1_testbed.phantoms import make_phantoms

    make_phantoms(setting.folder / "phantoms", train=1, test=8)
    script = Path(__file__).resolve().parents[1] / "eval" / "infer.py"
    words = ["--model_path", str(setting.checkpoint), "--data", str(setting.folder / "phantoms" / "test.json")]
    words += ["--image_root", str(setting.folder / "phantoms"), "--output_path", str(setting.folder / "vllm.jsonl")]
    words += ["--max_new_tokens", "8", "--backend", "vllm"]
    start = time.perf_counter()
    subprocess.run([sys.executable, str(script), *words], check=True, stdout=sys.stderr)
    return [{"seconds": round(time.perf_counter() - start, 1)}]


PARTS: dict[str, tuple[Callable[[Setting], list[Row]], int]] = {
    "ceilings": (ceilings, 30),
    "correctness": (correctness, 60),
    "rollout": (rollout, 70),
    "step": (step, 130),
    "evaluation": (evaluation, 80),
    "vllm": (vllm, 120),
}
"""By name: what measures it, and the seconds that it may take on a GPU; a CPU gets ten times as many."""


def run_part(name: str, words: list[str], limit: float, log: Path) -> tuple[list[Row], str]:
    """The rows that a part printed, and why it ended early; an empty text where it did not."""
    command = [sys.executable, __file__, *words, "--part", name]
    with log.open("w") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            text, _ = child.communicate(timeout=limit)
            reason = "" if child.returncode == 0 else f"failed: {_last_line(log)}"
        except subprocess.TimeoutExpired:
            child.kill()
            text, _ = child.communicate()
            reason = f"stopped after {limit:.0f} s"
    rows = [json.loads(line.removeprefix(MARK)) for line in text.splitlines() if line.startswith(MARK)]
    return [{"part": name, **row} for row in rows], reason


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="folder with a config.json: full size, random weights")
    parser.add_argument("--processor", type=Path, help="folder with the processor for --config")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=300, help="for all parts; ten times as many on a CPU")
    parser.add_argument("--output", type=Path, help="JSON file for the table; the parts' logs go beside it")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint made before, instead of one with random weights")
    parser.add_argument("--part", choices=PARTS, help="run one part in this process and print its rows")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        if flags.part:
            if flags.checkpoint is None:
                raise UserError("--part needs --checkpoint, a checkpoint's folder")
            choose_attention_kernels()
            for row in PARTS[flags.part][0](Setting(flags.checkpoint, folder)):
                print(MARK + json.dumps(row), flush=True)
            return
        checkpoint = flags.checkpoint or made_checkpoint(flags.config, flags.processor, folder / "checkpoint")
        logs = flags.output.parent if flags.output else folder
        report(run_all(flags.parts, checkpoint, flags.seconds, logs), flags.output)


def made_checkpoint(config: Path | None, processor: Path | None, folder: Path) -> Path:
    """A checkpoint with random weights: of the config's size, or tiny."""
    from grpo_step import TINY, full_size

    from open_r1_testbed.tiny_models import build_tiny_checkpoint

    return full_size(config, folder, processor) if config else build_tiny_checkpoint(folder, "qwen2_5_vl", shape=TINY)


def run_all(parts: list[str], checkpoint: Path, seconds: float, logs: Path) -> tuple[list[Row], list[str]]:
    """All rows, and the parts that did not come to their end."""
    factor = 1 if torch.cuda.is_available() else 10
    print(f"{hardware()}, {json.dumps(package_versions())}", flush=True)
    rows, unfinished, start = [], [], time.perf_counter()
    for part in parts:
        remaining = factor * seconds - (time.perf_counter() - start)
        limit = min(factor * PARTS[part][1], remaining)
        if limit < 5:
            unfinished.append(f"{part}: no time was left")
            continue
        part_rows, reason = run_part(part, ["--checkpoint", str(checkpoint)], limit, logs / f"{part}.log")
        rows += part_rows
        for row in part_rows:
            print("  ".join(str(value) if name == "part" else f"{name}={value}" for name, value in row.items()))
        if reason:
            unfinished.append(f"{part}: {reason}")
            print(unfinished[-1], flush=True)
    return rows, unfinished


def report(outcome: tuple[list[Row], list[str]], output: Path | None) -> None:
    """Write the table and end with status 1 where a part is missing."""
    rows, unfinished = outcome
    if output:
        table = {"hardware": hardware(), "versions": package_versions(), "rows": rows, "unfinished": unfinished}
        output.write_text(json.dumps(table, indent=1) + "\n")
    if unfinished:
        raise SystemExit(1)


if __name__ == "__main__":
    run_command(main)
