"""The tables of docs/gpus.md: what fits where, what the published commands take, and a plan beside what was measured.

python benchmarks/planned_tables.py            # prints them
python benchmarks/planned_tables.py --write    # writes them into docs/gpus.md

Memory is that of `--plan`. Seconds are a roofline estimate, which no run undercuts by much: products at 40 % of the
card's bfloat16 peak, and decoding at the full bandwidth of its memory. Launches, image processing, rewards, exchange
between cards and transfers to the host are not in it.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.training.command_line.flags import read_training_flags
from open_r1.training.memory.activations import Batch
from open_r1.training.memory.cards import CARDS, SOLD_AS, Card
from open_r1.training.memory.flags_of_run import run_of
from open_r1.training.memory.model_size import ModelSize, VisionSize, model_size
from open_r1.training.memory.plan import CONTEXT, Division, Method, Plan, Run, planned
from open_r1.training.memory.plan_command import verdict
from open_r1.training.memory.ways import fits, with_optimizer
from open_r1_testbed.published_sizes import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gpus.md"
MODELS = ("Qwen2-VL-2B", "Qwen2.5-VL-3B", "Qwen2.5-VL-7B")
MEMORIES, COUNTS = (24, 48, 80, 141), (1, 2, 4, 8)
SHARE_OF_PEAK = 0.4
"""Of the bfloat16 peak that a pass reaches; assumed."""

PUBLISHED_FLAGS = (
    '--nnodes=1 --node_rank=0 --master_addr="127.0.0.1" --master_port=12345 {script} --output_dir ./output/{output} '
    "--model_name_or_path ./checkpoints/{model}-Instruct --dataset_name ./data/VQA/CT_384 --max_prompt_length 1024 "
    "--per_device_train_batch_size {prompts} --gradient_accumulation_steps 2 --logging_steps 1 --bf16 "
    "--report_to wandb --gradient_checkpointing false --attn_implementation flash_attention_2 --max_pixels 401408 "
    "--num_train_epochs {epochs} --run_name {run} --save_steps 200 --save_only_model true --num_generations 4"
)


def torchrun(processes: int, script: str, deepspeed: str = "", **values: Any) -> str:
    """The published launch line with other values."""
    flags = PUBLISHED_FLAGS.format(script=f"src/open_r1/{script}.py", **values)
    return f"torchrun --nproc_per_node={processes} {flags}" + (f" --deepspeed {deepspeed}" if deepspeed else "")


@dataclass(frozen=True)
class Command:
    """A published command and what it works on."""

    title: str
    model: str
    """In `PUBLISHED`."""
    line: str
    card: str
    processes: int
    questions: int
    """Rows of the training split."""
    prompt_tokens: int
    image_tokens: int
    """Of an average prompt."""
    completion_tokens: int
    """Of an average completion."""


CT = {"questions": 12_567, "prompt_tokens": 310, "image_tokens": 196}
"""CT_384: images of 384 x 384 pixels are 196 tokens; the question with its prompt is about 114."""

COMMANDS = (
    Command(
        title="no-think, Qwen2.5-VL-3B",
        model="Qwen2.5-VL-3B",
        line=torchrun(
            2, "grpo_vqa_nothink", output="Modality_CT", model="Qwen2.5-VL-3B", prompts=1, epochs=2,
            run="Qwen2.5-VL-3B-GRPO-CT",
        ),
        card="H100", processes=2, completion_tokens=10, **CT,
    ),
    Command(
        title="think, Qwen2.5-VL-3B, ZeRO-2",
        model="Qwen2.5-VL-3B",
        line=torchrun(
            2, "grpo_vqa", "recipes/deepspeed/zero2.json", output="Modality_CT_think", model="Qwen2.5-VL-3B",
            prompts=2, epochs=2, run="Qwen2.5-VL-3B-GRPO-CT-think",
        ),
        card="H100", processes=2, completion_tokens=75, **CT,
    ),
    Command(
        title="think, Qwen2-VL-2B, one of the 13 runs",
        model="Qwen2-VL-2B",
        line=torchrun(
            2, "grpo_vqa", output="Modality_CT_2B", model="Qwen2-VL-2B", prompts=1, epochs=1,
            run="Qwen2-VL-2B-GRPO-CT",
        ),
        card="H100", processes=2, completion_tokens=75, **CT,
    ),
    Command(
        title="no-think, Qwen2-VL-7B, ZeRO-2",
        model="Qwen2-VL-7B",
        line=torchrun(
            8, "grpo_vqa_nothink", "recipes/deepspeed/zero2.json", output="Modality_CT_7B", model="Qwen2-VL-7B",
            prompts=1, epochs=2, run="Qwen2-VL-7B-GRPO-CT",
        ),
        card="H100", processes=8, completion_tokens=10, **CT,
    ),
    Command(
        title="text, HuatuoGPT-o1-7B, ZeRO-3 with offload",
        model="HuatuoGPT-o1-7B",
        line=(
            "accelerate launch --num_processes 3 --main_process_port 6688 --config_file "
            "recipes/accelerate_configs/zero3.yaml src/open_r1/grpo.py --config "
            "recipes/HuatuoGPT-o1/grpo/config_medxpert_usmle.yaml"
        ),
        card="H100", processes=3, questions=1_090, prompt_tokens=300, image_tokens=0, completion_tokens=1_024,
    ),
)  # fmt: skip


def command_flags(command: Command) -> dict[str, Any]:
    """A command's flags by name, with what its launcher adds."""
    words = [str(ROOT / word) if word.startswith("recipes/") else word for word in shlex.split(command.line)]
    place = next(index for index, word in enumerate(words) if word.startswith("src/"))
    flags = read_training_flags("grpo", words[place + 1 :])
    values = vars(flags.library) | vars(flags.defaults) | vars(flags.script)
    if "--config_file" in words:
        launcher = yaml.safe_load(Path(words[words.index("--config_file") + 1]).read_text())["deepspeed_config"]
        places = {name: {"device": launcher[f"{name}_device"]} for name in ("offload_optimizer", "offload_param")}
        values["deepspeed"] = {"zero_optimization": {"stage": launcher["zero_stage"], **places}}
    return values


def command_plan(command: Command) -> Plan:
    """The memory plan of a command on its cards."""
    card = CARDS[command.card]
    run = run_of(command_flags(command), model_size(PUBLISHED[command.model]), command.processes)
    return planned(with_optimizer(run, card, None), card.gib)


def pass_flops(size: ModelSize, tokens: float, scored: float, patches: float, per_weight: int) -> float:
    """FLOPs of a pass: 2 per weight and token forward, 4 more backward (Kaplan et al. 2020, arXiv 2001.08361,
    section 2.1), 2 more where layers are computed again (Korthikanti et al. 2022, arXiv 2205.05198). Products of
    queries and keys are left out, as in the logged `mfu`.
    """
    return per_weight * (size.language.matrices * tokens + size.language.table * scored + size.vision_weights * patches)


def decoding_bytes(size: ModelSize, rows: int, prompt_tokens: int, completion_tokens: int) -> float:
    """Bytes read while `rows` completions are decoded together: for each token all bfloat16 weights of the language
    model, and the keys and values of the rows (Pope et al. 2022, arXiv 2211.05102, section 2).
    """
    language = size.language
    weights = 2 * (language.matrices + language.table)
    states = 4 * language.layers * language.keys * rows * (prompt_tokens + completion_tokens / 2)
    return completion_tokens * (weights + states)


def step_seconds(command: Command, card: Card) -> float:
    """Seconds of an optimizer step: prefill, decoding, reference, forward and backward."""
    assert card.teraflops is not None
    assert card.bandwidth is not None
    plan = command_plan(command)
    run = plan.run
    size, group, length = run.size, run.batch.group, command.completion_tokens
    prompts = run.batch.prompts * run.sampled_at_once
    patches = command.image_tokens * size.vision.patches_per_token if isinstance(size.vision, VisionSize) else 0
    tokens = command.prompt_tokens - 1 + group * length
    training = (8 if run.checkpointing else 6) + (2 if run.has_reference else 0)
    flops = pass_flops(size, tokens, group * length, patches, training)
    flops += pass_flops(size, command.prompt_tokens, 1, patches, 2)
    read = decoding_bytes(size, prompts * group, command.prompt_tokens, length)
    return prompts * flops / (SHARE_OF_PEAK * card.teraflops * 1e12) + read / (card.bandwidth * 1e9)


def command_rows() -> Iterator[str]:
    """The table of the published commands."""
    yield "| command | cards | GiB on each, longest pass | tokens a completion | seconds a step | steps | hours |"
    yield "|---|---|---|---|---|---|---|"
    for command in COMMANDS:
        plan, card, flags = command_plan(command), CARDS[command.card], command_flags(command)
        seconds = step_seconds(command, card)
        prompts = plan.run.batch.prompts * plan.run.sampled_at_once * command.processes
        steps = ceil(command.questions * float(flags["num_train_epochs"]) / prompts)
        gib = f"{plan.gib:.1f}: {verdict(plan, card)}"
        yield (
            f"| {command.title} | {command.processes} x {command.card} | {gib} | {command.completion_tokens:,} | "
            f"{seconds:.2f} | {steps:,} | {steps * seconds / 3600:.1f} |"
        )


def choices(run: Run, card: Card) -> Iterator[tuple[str, Run]]:
    """Ways of one method on a card with their marks, the gentlest first."""
    small = replace(run, checkpointing=True)
    if run.method is not Method.FULL:
        half, small = replace(run, half_weights=True), replace(small, half_weights=True)
        yield from ([] if run.method is Method.QLORA else [("", run)])
        yield "b", half
        yield "b c", small
        return
    divided = with_optimizer(run, card, None)
    yield "" if divided is run else "d", divided
    yield "c" if divided is run else "d c", replace(divided, checkpointing=True)
    for stage, division in ((2, Division.ZERO2), (3, Division.ZERO3)) if run.processes > 1 else ():
        yield f"z{stage}", replace(run, division=division)
        yield f"z{stage} c", replace(small, division=division)


def cell(run: Run, memory: int) -> str:
    """GiB and marks of the gentlest way that fits; a dash where none does."""
    card = Card(f"{memory} GB", SOLD_AS[memory])
    for marks, changed in choices(run, card):
        plan = planned(changed, card.gib)
        if fits(plan, card):
            return f"{plan.gib:.1f} {marks}".strip()
    return "-"


def fit_rows() -> Iterator[str]:
    """The table of what fits where: the published no-think flags with other models, methods and cards."""
    yield "| model | trains | cards | " + " | ".join(f"{memory} GB" for memory in MEMORIES) + " |"
    yield "|---" * (3 + len(MEMORIES)) + "|"
    flags = command_flags(COMMANDS[0])
    for model in MODELS:
        for method in Method:
            adapts = {"use_peft": method is not Method.FULL, "load_in_4bit": method is Method.QLORA}
            cells = []
            for count in COUNTS:
                run = run_of(flags | adapts, model_size(PUBLISHED[model]), count)
                cells.append((str(count), tuple(cell(run, memory) for memory in MEMORIES)))
            for row, same in groupby(cells, key=lambda entry: entry[1]):
                yield f"| {model} | {method} | {', '.join(count for count, _ in same)} | " + " | ".join(row) + " |"


@dataclass(frozen=True)
class Measured:
    """A peak of torch on an H100 in `gpu_check.py`: Qwen2.5-VL-3B with random weights, all of it in bfloat16."""

    prompts: int
    group: int
    has_state: bool
    """Whether AdamW has made a step before."""
    gib: float
    stock_gib: float
    """Of stock TRL, one prompt at a time."""
    sampled_at_once: int
    """Rollouts of the size of this pass for which keys and values were kept."""


MEASURED = (Measured(8, 8, False, 49.0, 45.9, 1), Measured(1, 4, True, 42.6, 49.8, 16))


def measured_plan(measured: Measured) -> float:
    """GiB that the plan has for it, without CUDA's own part, which torch does not count."""
    batch = Batch(measured.prompts, 310, 196, measured.group, 10)
    states = 2.0 if measured.has_state else 0.0
    size, sampled = model_size(PUBLISHED["Qwen2.5-VL-3B"]), measured.sampled_at_once
    return planned(Run(size, batch, half_weights=True, states=states, sampled_at_once=sampled)).gib - CONTEXT


def measured_rows() -> Iterator[str]:
    """The plan beside what was measured."""
    yield "| prompts | completions of each | AdamW has a state | measured, GiB | planned, GiB | stock TRL, GiB |"
    yield "|---|---|---|---|---|---|"
    for entry in MEASURED:
        state = "yes" if entry.has_state else "no"
        gib = f"{entry.gib} | {measured_plan(entry):.1f} | {entry.stock_gib}"
        yield f"| {entry.prompts} | {entry.group} | {state} | {gib} |"


TABLES = {"measured": measured_rows, "what fits where": fit_rows, "published commands": command_rows}


def with_tables(page: str) -> str:
    """A page with the tables between its marks `<!-- planned: NAME -->` and `<!-- end -->`."""
    for name, rows in TABLES.items():
        start, end = f"<!-- planned: {name} -->\n", "<!-- end -->"
        table = start + "\n".join(rows()) + "\n"
        page, count = re.subn(f"{re.escape(start)}.*?(?={end})", lambda _, text=table: text, page, flags=re.DOTALL)
        assert count == 1, f"{name}: {count} places"
    return page


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/gpus.md")
    if parser.parse_args().write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, rows in TABLES.items():
        print(f"{name}\n", *rows(), "", sep="\n")


if __name__ == "__main__":
    run_command(main)
