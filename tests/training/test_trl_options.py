"""Every option of TRL is served or refused with its reason, never taken without a word."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from local_hub import LocalHub
from model_cards import run
from published_sets import save_published_form
from tiny_trainers import make_trainer
from trl import GRPOConfig

from open_r1.common.errors import UserError
from open_r1.training.command_line.flags import check_training_flags, read_training_flags
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.command_line.trl_options import REFUSED, SAMPLING_KEYS, SUPPORTED, refuse_unsupported
from open_r1.training.setup.tracking import prepare_trackers
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("options") / "tiny")


def test_each_option_of_the_installed_trl_is_judged_once() -> None:
    """A field that an upgrade brings fails here: decide whether the trainer serves it, and say why if not."""
    options = {field.name for field in dataclasses.fields(GRPOConfig)}
    assert options - SUPPORTED - REFUSED.keys() == set(), "not judged yet"
    assert (SUPPORTED | REFUSED.keys()) - options == set(), "gone from TRL"
    assert SUPPORTED & REFUSED.keys() == set()


def test_trls_own_defaults_are_no_demand() -> None:
    refuse_unsupported(vars(GRPOConfig("unused", report_to="none", use_cpu=True)))
    refuse_unsupported(vars(GRPOTrainingConfig(output_dir="unused", report_to="none")))


NEEDED = ["--model_name_or_path", "base", "--dataset_name", "data", "--output_dir", "out"]


@pytest.mark.parametrize(
    "typed",
    [
        "--use_transformers_continuous_batching true",
        "--use_transformers_paged",
        "--transformers_continuous_batching_config {}1",
        "--max_tool_calling_iterations 3",
        "--model_init_kwargs {'dtype':'auto'}",
        "--train_sampling_strategy group_by_length",
        "--neftune_noise_alpha 5",
        "--label_smoothing_factor 0.1",
        "--data_seed 3",
        "--enable_jit_checkpoint true",
        "--remove_unused_columns true",
    ],
)
def test_what_would_have_no_effect_is_refused_before_torch(typed: str) -> None:
    name, _, _ = typed[2:].partition(" ")
    with pytest.raises(UserError) as refused:
        read_training_flags("grpo", [*NEEDED, *typed.split()])
    assert str(refused.value).startswith(f"--{name} ")
    assert str(refused.value).endswith(REFUSED[name])


def test_an_option_that_is_turned_off_is_no_demand_and_sft_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    off = "--use_transformers_continuous_batching false --label_smoothing_factor 0 --train_sampling_strategy random"
    read_training_flags("grpo", [*NEEDED, *off.split()])
    read_training_flags("sft", [*NEEDED, "--neftune_noise_alpha", "5"])
    monkeypatch.setattr(sys, "argv", ["x", *NEEDED, "--use_transformers_continuous_batching", "true"])
    with pytest.raises(UserError, match="continuous batching"):
        check_training_flags("grpo", None)


# --- the trainer as a library ----------------------------------------------------------------------------------------


def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Sixteen-token prompts and completions of its own: 7, 8, 9."""
    ids = trainer.processing_class.tokenizer("Another prompt than the one that was prepared")["input_ids"]
    return {
        "prompt_ids": [ids for _ in prompts],
        "completion_ids": [[7, 8, 9] for _ in prompts],
        "logprobs": [[-1.0, -1.0, -1.0] for _ in prompts],
    }


def look_up(name: str) -> str:
    """Look a word up.

    Args:
        name: the word.
    """
    return name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"rollout_func": rollout}, {"tools": [look_up]}, {"environment_factory": object}],
    ids=lambda options: next(iter(options)),
)
def test_what_changes_prompts_while_sampling_is_refused_beside_the_shared_prefix(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("tiny_trainers.OPTIONS", (*options, "shared_prefix"))
    with pytest.raises(UserError, match=f"^{next(iter(options))} changes prompts.*shared_prefix=False trains with it"):
        make_trainer(tiny, tmp_path, [None, None], **options)


@pytest.mark.slow
def test_a_rollout_function_is_served_without_the_shared_prefix(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiny_trainers.OPTIONS", ("rollout_func", "shared_prefix"))
    trainer = make_trainer(tiny, tmp_path, [None, None], rollout_func=rollout, shared_prefix=False)
    all_inputs = []
    compute = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: all_inputs.append(inputs) or compute(model, inputs)
    trainer.train()
    ids = rollout([0], trainer)["prompt_ids"][0]
    assert torch.equal(all_inputs[0]["prompt_ids"], torch.tensor([ids] * 6))
    assert torch.equal(all_inputs[0]["completion_ids"], torch.tensor([[7, 8, 9]] * 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cache_implementation": "static"},
            "--cache_implementation static: the completions of a group share a",
        ),
        ({"generation_kwargs": {"num_beams": 2}}, "--generation_kwargs num_beams: "),
        ({"generation_kwargs": {"top_k": 4, "num_return_sequences": 2}}, "--generation_kwargs num_return_sequences: "),
        ({"pad_to_multiple_of": 8}, "--pad_to_multiple_of 8: "),
        ({"use_transformers_continuous_batching": True}, "--use_transformers_continuous_batching true: groups"),
    ],
)
def test_what_one_prefill_cannot_serve_is_one_line(
    tiny: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        make_trainer(tiny, tmp_path, [0, 1], **options)
    assert str(refused.value).startswith(message)


@pytest.mark.slow
def test_a_static_cache_is_served_without_the_shared_prefix(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, [None, None], shared_prefix=False, cache_implementation="static")
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.slow
def test_tokens_that_are_not_to_be_sampled_are_so_beside_ours(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, [0, 1], generation_kwargs={"suppress_tokens": [65, 66], "top_k": 5})
    assert {65, 66, trainer.model.config.image_token_id} <= set(trainer.generation_config.suppress_tokens)
    assert trainer.generation_config.top_k == 5
    assert "suppress_tokens" in SAMPLING_KEYS


# --- completions on the hub ------------------------------------------------------------------------------------------


# huggingface_hub 1.33 sends a data set's card to https://huggingface.co for validation, whatever HF_ENDPOINT says.
TRAININGS_IN_FORKS = """
import json, os, runpy, sys
from huggingface_hub import RepoCard
from open_r1.training import grpo_run
RepoCard.validate = lambda *_, **__: None
statuses = []
for name, words in json.loads(sys.argv[2]).items():
    process = os.fork()
    if process == 0:
        log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.argv = [sys.argv[1], *words]
        runpy.run_path(sys.argv[0], run_name="__main__")
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
print(statuses)
"""


def created(hub: LocalHub, name: str) -> list[Any]:
    bodies = [json.loads(call.body) for call in hub.requests if call.path == "/api/repos/create"]
    return [body.get("visibility") for body in bodies if body["name"] == name]


@pytest.mark.slow
def test_completions_go_to_a_private_data_set_unless_asked_for_twice(
    tiny: Path, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    save_published_form(tmp_path / "CT", 2)
    words = "--model_name_or_path tiny --dataset_name CT --num_generations 2 --max_completion_length 4 --max_steps 1 "
    words += "--save_strategy no --log_completions true --output_dir {0} --log_completions_hub_repo org/{0}"
    more = {"new": [], "known": [], "open": ["--log_completions_publicly", "true"]}
    trainings = {name: [*words.format(name).split(), *flags] for name, flags in more.items()}
    script = str(repository / "src" / "open_r1" / "grpo_vqa_nothink.py")
    with LocalHub({}, public={"org/known"}) as hub:
        process = run(hub, tmp_path, "-c", TRAININGS_IN_FORKS, script, json.dumps(trainings))
    assert process.returncode == 0, process.stderr[-3000:]
    output = {name: (tmp_path / f"{name}.log").read_text() for name in trainings}
    assert process.stdout.splitlines()[-1] == "[0, 2, 0]", output
    assert "prompts and completions go to the data set org/new, which can be read by you" in output["new"]
    assert created(hub, "new")[0] == "private"  # what comes after finds it there
    assert "org/new" not in hub.public
    assert any(name.endswith(".parquet") for name in hub.pushed["org/new"])
    line = output["known"].strip().splitlines()[-1]
    assert line.startswith("error: --log_completions_hub_repo org/known is public")
    assert hub.pushed.get("org/known", {}) == {}
    assert created(hub, "open")[0] == "public"
    assert "which can be read by EVERYBODY" in output["open"]


def test_completions_do_not_go_to_a_space_that_everybody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    config = GRPOTrainingConfig(output_dir="unused", report_to="none", log_completions=True, trackio_space_id="org/x")
    config.report_to = ["trackio"]
    with pytest.raises(UserError, match="questions of patients to the space org/x"):
        prepare_trackers(config)


def test_publishing_alone_does_nothing_and_says_so(tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tiny_trainers.OPTIONS", ("publish_completions",))
    with pytest.raises(UserError, match="does nothing without --log_completions_hub_repo"):
        make_trainer(tiny, tmp_path, [0, 1], publish_completions=True)
