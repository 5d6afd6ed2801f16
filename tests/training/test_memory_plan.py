"""The memory plan: weights counted from config.json, a pass held against fake CUDA tensors, and what the table says."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from published_configs import PUBLISHED

from open_r1.checkpoints.families import FAMILIES
from open_r1.common.errors import UserError
from open_r1.modeling.decoding import steps
from open_r1.training.command_line.flags import read_training_flags
from open_r1.training.grpo.packed_scoring import LONG_SEGMENTS
from open_r1.training.memory import plan as plans
from open_r1.training.memory.at_start import impossible, plan_at_start, start_line
from open_r1.training.memory.cards import CARDS, Card, parse_cards
from open_r1.training.memory.flags_of_run import TEXT_AROUND, run_of, states_per_weight
from open_r1.training.memory.model_size import model_size
from open_r1.training.memory.plan import GIB, Division, Plan, Run, planned
from open_r1.training.memory.plan_command import plan_for, plan_text
from open_r1.training.memory.ways import fits, ways, with_optimizer
from open_r1_testbed.tiny_models import build_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]


def counted(config: Any) -> int:
    """Weights of the real class, made without numbers."""
    with torch.device("meta"):
        model = getattr(transformers, FAMILIES[config.model_type].model_class)(config)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_of_published_models_are_counted_exactly(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    size = model_size(PUBLISHED[name])
    print(f"{name}: {size.weights:,} weights")
    assert size.weights == counted(transformers.AutoConfig.from_pretrained(tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_every_family_are_counted_exactly(family: str, tmp_path: Path) -> None:
    folder = build_tiny_checkpoint(tmp_path / family, family)
    config = transformers.AutoConfig.from_pretrained(folder)
    size = model_size(json.loads((folder / "config.json").read_text()))
    assert size.weights == counted(config)
    with torch.device("meta"):
        model = getattr(transformers, FAMILIES[family].model_class)(config)
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv3d))
    if family != "gemma3":  # whose tower nothing runs
        assert size.rounded == matrices - size.language.table  # the head, tied or not


OTHERS = {
    "llama": {},
    "qwen3": {"head_dim": 24},
    "mistral": {"tie_word_embeddings": True},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


@pytest.mark.parametrize("family", OTHERS)
def test_weights_of_any_other_text_model_are_counted_on_its_class(family: str) -> None:
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **sizes | heads | OTHERS[family])
    size = model_size(config.to_dict())
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert size.weights == sum(weight.numel() for weight in model.parameters())
    inside = [
        weight for name, weight in model.named_parameters() if "embed_tokens" not in name and "lm_head" not in name
    ]
    matrices = sum(weight.numel() for weight in inside if weight.ndim > 1)
    assert abs(size.rounded - matrices) < 0.01 * matrices


def test_a_model_whose_size_is_unknown_is_one_line() -> None:
    with pytest.raises(UserError, match="'bert_of_tomorrow' is no family"):
        model_size({"model_type": "bert_of_tomorrow"})
    with pytest.raises(UserError, match="lacks num_hidden_layers"):
        model_size({key: value for key, value in PUBLISHED["Qwen2-VL-2B"].items() if key != "num_hidden_layers"})


def published_run(name: str = "Qwen2.5-VL-3B", processes: int = 2, **flags: Any) -> Run:
    """The published no-think command's flags, as far as they decide its memory."""
    values = {"max_prompt_length": 1024, "gradient_accumulation_steps": 2, "bf16": True, "max_pixels": 401408}
    return run_of(values | {"num_generations": 4} | flags, model_size(PUBLISHED[name]), processes)


def items(plan: Plan) -> dict[str, float]:
    return {item.name: round(item.bytes / GIB, 1) for item in plan.items}


def test_the_published_command_fits_two_80_gb_cards_with_4_gib_to_spare() -> None:
    """3,754,622,976 float32 weights are 13.99 GiB: whole, AdamW's two moments would be 28."""
    card = CARDS["H100"]
    whole = planned(published_run())
    assert not fits(whole, card)
    assert items(whole)["DDP's buckets"] == items(whole)["gradients"] == items(whole)["weights, float32"] == 14.0
    run = with_optimizer(published_run(), card, None)
    assert run.division is Division.OPTIMIZER
    plan = planned(run)
    held = items(plan)
    assert held["optimizer, divided among 2"] == 14.0  # 28 / 2
    assert held["gradients, in DDP's buckets"] == 14.0
    assert "DDP's buckets" not in held
    assert held["reference, bfloat16"] == 7.0  # 13.99 / 2, and float32 for 1.5 million norms and biases
    assert plan.gib + 4 <= card.gib == 79.1
    print(f"published command: {plan.gib:.1f} GiB on each card, {whole.gib:.1f} with nothing divided")


def test_several_images_take_as_much_of_the_prompt_as_they_can() -> None:
    """An image of 401,408 pixels takes 512 tokens, two what 1,024 leave beside 40 of text, and a text question none."""
    values = {"max_prompt_length": 1024, "max_pixels": 401408}
    size = model_size(PUBLISHED["Qwen2.5-VL-3B"])
    tokens = [run_of(values, size, 1, images=images).batch.image_tokens for images in (0, 1, 2, 6)]
    assert tokens == [0, 512, 1024 - TEXT_AROUND, 1024 - TEXT_AROUND]


def test_the_published_command_word_for_word_fits_two_80_gb_cards(tmp_path: Path) -> None:
    """As the README has it, with the model's folder in place of the checkpoint's."""
    page = (REPOSITORY / "README.md").read_text().replace("\\\n", " ")
    words = shlex.split(next(line for line in page.splitlines() if line.startswith("torchrun")))
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["Qwen2.5-VL-3B"]))
    words[words.index("--model_name_or_path") + 1] = str(tmp_path)
    assert "--nproc_per_node=2" in words
    flags = words[words.index("src/open_r1/grpo_vqa_nothink.py") + 1 :]
    text = plan_for(read_training_flags("grpo", [*flags, "--plan", "H100:2"]), supervised=False)
    spare = float(text.partition("fits, ")[2].partition(" to spare")[0])
    print(text)
    assert spare >= 4


def test_limits_are_those_of_packing_and_decoding() -> None:
    assert (plans.BY_MASK_UP_TO, plans.KEPT_CACHE, plans.COLUMNS) == (LONG_SEGMENTS, steps.KEPT, steps.COLUMNS)


def test_the_optimizer_is_divided_only_where_it_has_to_be() -> None:
    h100, h200 = CARDS["H100"], CARDS["H200"]
    assert with_optimizer(published_run(), h200, None).division is Division.NOTHING
    assert with_optimizer(published_run(processes=1), h100, None).division is Division.NOTHING  # nobody to divide with
    assert with_optimizer(published_run(use_peft=True), h100, None).division is Division.NOTHING
    assert with_optimizer(published_run(), h100, False).division is Division.NOTHING  # as it was asked for
    assert with_optimizer(published_run(), h100, None, can_divide=False).division is Division.NOTHING
    engine = published_run(deepspeed='{"zero_optimization": {"stage": 2}}')
    assert with_optimizer(engine, CARDS["L4"], None).division is Division.ZERO2
    asked = published_run(shard_optimizer=True)
    assert with_optimizer(asked, h200, True).division is Division.OPTIMIZER


def test_flags_decide_what_is_held() -> None:
    size = model_size(PUBLISHED["Qwen2.5-VL-3B"])
    weights = size.weights * 4 / GIB
    full = items(planned(published_run(processes=1)))
    assert full["optimizer"] == round(2 * weights, 1)
    assert "reference, bfloat16" not in items(planned(published_run(processes=1, beta=0.0)))
    assert items(planned(published_run(processes=1, sync_ref_model=True)))["reference, float32"] == round(weights, 1)
    assert items(planned(published_run(processes=1, dtype="bfloat16")))["weights, bfloat16"] == round(weights / 2, 1)
    frozen = items(planned(published_run(processes=1, freeze_vision_tower=True)))
    assert frozen["gradients"] == round((size.weights - size.vision_weights) * 4 / GIB, 1)
    lora = items(planned(published_run(processes=1, use_peft=True, lora_r=64)))
    # 64 x (inputs + outputs): q and o 4,096, k and v 2,304, gate, up and down 13,056; of 36 layers
    adapters = 64 * 36 * (2 * 4096 + 2 * 2304 + 3 * 13056)
    assert lora["adapters, float32"] == round(4 * adapters / GIB, 1)
    assert lora["optimizer"] == round(8 * adapters / GIB, 1)
    packed = items(planned(published_run(processes=1, use_peft=True, load_in_4bit=True, dtype="bfloat16")))
    expected = size.language.matrices * 0.5625 + (size.weights - size.language.matrices) * 2
    assert packed["weights, 4 bits"] == round(expected / GIB, 1)
    zero3 = items(planned(published_run(processes=4, deepspeed='{"zero_optimization": {"stage": 3}}')))
    assert zero3["weights, bfloat16"] == round(weights / 8, 1)
    assert zero3["optimizer, divided among 4"] == round(weights / 2, 1)
    vllm = planned(published_run(use_vllm=True, vllm_gpu_memory_utilization=0.4), CARDS["H100"].gib)
    assert items(vllm)["vLLM"] == round(0.4 * 79.1, 1)


def test_numbers_that_an_optimizer_keeps() -> None:
    expected = {"adamw_torch": 2, "adamw_torch_fused": 2, "adamw_bnb_8bit": 0.5, "paged_adamw_8bit": 0.5, "sgd": 0}
    expected |= {
        "lion_32bit": 1,
        "adafactor": 0,
        "OptimizerNames.ADAMW_TORCH": 2,
        "ademamix": 3,
        "adamw_torch_4bit": 0.25,
    }
    assert {name: states_per_weight(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "name", "gib", "count"),
    [
        ("H100:2", "H100", 79.1, 2), ("h100", "H100", 79.1, 1), ("80GB:4", "80 GB", 79.1, 4), ("24", "24 GB", 22.0, 1),
        ("rtx-4090", "RTX4090", 23.6, 1), ("A100-40:8", "A100-40", 39.4, 8), ("16GiB", "16 GB", 14.6, 1),
    ],
)  # fmt: skip
def test_cards_by_name_and_by_size(text: str, name: str, gib: float, count: int) -> None:
    card, number = parse_cards(text)
    assert (card.name, round(card.gib, 1), number) == (name, gib, count)


@pytest.mark.parametrize("text", ["H1000", "H100:0", "H100:two", "", ":2"])
def test_an_unknown_card_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=f"--plan {text}"):
        parse_cards(text)


def test_what_does_not_fit_is_told_with_changes_that_do() -> None:
    card = CARDS["RTX4090"]
    run = published_run(processes=1)
    found = ways(run, card)
    assert found
    assert all(fits(way.plan, card) for way in found)
    assert "--use_peft --load_in_4bit" in found[-1].flags
    text = plan_text("m", planned(run), card)
    assert "does not fit" in text
    assert all(way.flags in text for way in found[:3])
    problem = impossible(planned(run), card)
    assert problem is not None
    assert problem.startswith("this run does not fit RTX4090 with 23.6 GiB: before the first token it holds")
    tight = published_run(processes=1, gradient_accumulation_steps=1)
    assert impossible(planned(tight), CARDS["H100"]) is None
    assert start_line(planned(tight), CARDS["H100"]).startswith("memory plan: ")


class Training:
    """What `plan_at_start` asks of the training arguments."""

    optim = "adamw_torch_fused"
    device = torch.device("cpu")
    world_size = 2
    prompts_per_device = 1

    def __init__(self, **flags: Any) -> None:
        vars(self).update({"bf16": True, "gradient_accumulation_steps": 2, "num_generations": 4} | flags)


def at_start(folder: Path, card: Card | None, shard: bool | None = None, **flags: Any) -> tuple[bool, list[str]]:
    (folder / "config.json").write_text(json.dumps(PUBLISHED["Qwen2.5-VL-3B"]))
    script = SimpleNamespace(shard_optimizer=shard, max_pixels=None)
    model = SimpleNamespace(model_name_or_path=str(folder), dtype="float32")
    said: list[str] = []
    return plan_at_start(script, Training(**flags), model, [300, 310, 280], True, said.append, card), said


def test_a_run_begins_with_its_plan_and_divides_where_it_must(tmp_path: Path) -> None:
    divides, (line,) = at_start(tmp_path, CARDS["H100"])
    assert divides
    assert line.startswith("memory plan: 66.")  # with prompts of 310 tokens
    assert "the optimizer's state is divided among 2 processes, because undivided it would come to 9" in line
    divides, (line,) = at_start(tmp_path, CARDS["H200"])
    assert not divides
    assert "divided" not in line
    assert at_start(tmp_path, None) == (False, [])  # no GPU, no plan
    assert at_start(tmp_path, None, shard=True) == (True, [])
    with pytest.raises(UserError, match=r"does not fit L4 with 22\.0 GiB: before the first token it holds"):
        at_start(tmp_path, CARDS["L4"])
    _, (line,) = at_start(tmp_path, CARDS["H100"], max_completion_length=2000)
    assert line.startswith("warning: memory plan: ")
    assert "What would fit: --gradient_checkpointing true" in line


@pytest.mark.slow
def test_plan_needs_neither_gpu_nor_torch_nor_data(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["Qwen2-VL-2B"]))
    words = [
        "x",
        "--model_name_or_path",
        str(tmp_path),
        "--dataset_name",
        "none",
        "--output_dir",
        "o",
        "--plan",
        "24:2",
    ]
    code = (
        "import sys; from open_r1.training.command_line.flags import check_training_flags\n"
        f"sys.argv = {words}\n"
        "try: check_training_flags('grpo', None)\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys(), 'heavy'\n"
    )
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert "2.21 billion weights" in run.stdout
    assert "on 2 x 24 GB with 22.0 GiB each; planned, not measured" in run.stdout
