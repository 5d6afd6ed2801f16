"""What the training options promise: the same step, fewer passes, images and dead groups handled as said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import LOSSES, PROBLEMS, length_reward, make_trainer, weights
from transformers import TrainerCallback

from open_r1.common.durations import duration
from open_r1.common.errors import UserError
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.grpo.groups import without_spread
from open_r1.training.grpo.micro_batches import chunks_within, divide, trim
from open_r1.training.grpo.options import shared_prefix_line
from open_r1.training.grpo_run import require_one_kind
from open_r1.training.memory.room_to_come import bytes_to_come
from open_r1.training.setup.cost_estimate import TryLongestBatch
from open_r1.training.setup.trainable_parts import freeze_vision_tower
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def last_log(trainer: Any) -> dict[str, float]:
    return [entry for entry in trainer.state.log_history if "grad_norm" in entry][-1]


def trained(
    checkpoint: Path, output: Path, images: Sequence[int | None], **settings: Any
) -> tuple[Any, dict[str, float]]:
    trainer = make_trainer(checkpoint, output, images, **settings)
    trainer.train()
    return trainer, last_log(trainer)


def difference(trainer: Any, other_trainer: Any) -> float:
    """Largest difference between two trainers' weights."""
    other_weights = weights(other_trainer)
    return max((value - other_weights[name]).abs().max().item() for name, value in weights(trainer).items())


# --- micro-batches by tokens -------------------------------------------------------------------------------------


def test_groups_are_divided_by_tokens_with_the_padding_counted() -> None:
    # G = 2; sizes P - 1 + 2 C: 9 + 8 = 17, 19 + 4 = 23, 9 + 2 = 11. Largest first: 1, then 0 beside it would cost
    # 2 * (19 + 2 * 4) = 54 > 50, so a new chunk; 2 beside 0 costs 2 * (9 + 8) = 34 <= 50.
    assert chunks_within([10, 20, 10], [4, 2, 1], 2, 50) == [[1], [0, 2]]
    assert chunks_within([10, 20, 10], [4, 2, 1], 2, 1000) == [[1, 0, 2]]
    assert chunks_within([10, 20, 10], [4, 2, 1], 2, 1) == [[1], [0], [2]]  # a group is never divided


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["grpo", *LOSSES])
def test_micro_batches_by_tokens_make_the_same_step(tiny: Path, tmp_path: Path, loss_type: str) -> None:
    trainer = make_trainer(tiny, tmp_path, [0, 1, 2, None], per_device_train_batch_size=4, loss_type=loss_type)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(3)])
    results = []
    for budget in (None, 300):
        trainer.tokens_per_micro_batch = budget
        trainer.model.zero_grad(set_to_none=True)
        trainer._metrics["train"].clear()
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        metrics = dict(trainer._metrics["train"])
        gradient = torch.cat([p.grad.flatten().double() for p in trainer.model.parameters() if p.grad is not None])
        results.append((loss.item(), gradient, metrics))
    prompts, mask = trainer._buffered_prompts["train"], batch["completion_mask"]
    assert len(divide(prompts.mask, mask, 300, trainer.accelerator.gather)) > 1
    (loss, gradient, metrics), (chunked_loss, chunked_gradient, chunked_metrics) = results
    assert chunked_loss == pytest.approx(loss, abs=1e-7)
    cosine = torch.cosine_similarity(gradient, chunked_gradient, dim=0).item()
    print(f"{loss_type}: 1 - cosine {1 - cosine:.1e}, norms {gradient.norm():.6f} {chunked_gradient.norm():.6f}")
    assert cosine > 1 - 1e-9
    assert chunked_gradient.norm().item() == pytest.approx(gradient.norm().item(), rel=1e-5)
    assert chunked_metrics.keys() == metrics.keys()
    for name, values in metrics.items():
        assert chunked_metrics[name] == pytest.approx(values, abs=1e-5), name


def test_padding_of_a_whole_rollout_is_not_trained_on() -> None:
    ids = torch.tensor([[[5, 6, 0, 0], [7, 0, 0, 0]]])
    values = {"completion_ids": ids, "completion_mask": (ids > 0).long(), "advantages": torch.ones(1, 2)}
    cut = trim(values)
    assert cut["completion_ids"].tolist() == [[[5, 6], [7, 0]]]
    assert cut["advantages"].shape == (1, 2)


# --- dead groups -------------------------------------------------------------------------------------------------


def test_a_group_is_dead_where_all_earn_the_same() -> None:
    nan = float("nan")
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [nan, 2.0, 2.0], [nan, nan, nan], [nan, 1.0, 2.0]])
    assert without_spread(rewards).tolist() == [True, False, True, True, False]


def rewarded_for(*live: int) -> Any:
    """Completions of a group differ in correctness only where the question is one of `live`."""

    def accuracy_reward(completions: list[Any], problem: list[str], **_: Any) -> list[float]:
        return [float(place % 3 == 0 and PROBLEMS.index(text) in live) for place, text in enumerate(problem)]

    return accuracy_reward


@pytest.mark.slow
def test_dead_groups_are_replaced_by_prompts_that_are_right_in_part(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        *(tiny, tmp_path, [0, 1, 2, 3]),
        per_device_train_batch_size=2,
        resample_dead_groups=8,
        reward=rewarded_for(3),
    )
    trainer.model.train()
    rows = list(trainer.train_dataset)
    batch = trainer._generate_and_score_completions([row for row in (rows[0], rows[3]) for _ in range(3)])
    assert batch["advantages"].abs().amax(dim=1).min() > 0  # both groups teach something now
    pixels = [trainer._buffered_prompts["train"].slice(i, i + 1).vision["pixel_values"] for i in range(2)]
    assert torch.equal(pixels[0], pixels[1])  # the only prompt that could replace the first is the live one
    assert trainer._metrics["train"]["groups_dead"] == [0.5]
    assert trainer._metrics["train"]["groups_replaced"] == [0.5]
    assert trainer._metrics["train"]["reward"] == [pytest.approx(1 / 6)]  # of the batch as it was drawn
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    trainer.current_gradient_accumulation_steps = 1
    assert torch.isfinite(trainer._compute_loss(trainer.model, batch))


@pytest.mark.slow
def test_a_batch_without_replacement_keeps_its_groups(tiny: Path, tmp_path: Path) -> None:
    trainer, log = trained(
        *(tiny, tmp_path, [0, 1, 2, None]), resample_dead_groups=2, reward=rewarded_for(), max_steps=1
    )
    assert log["groups_dead"] == 1
    assert log["groups_replaced"] == 0
    assert trainer.state.global_step == 1


@pytest.mark.slow
def test_resampling_needs_to_know_what_is_right(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the accuracy reward"):
        make_trainer(tiny, tmp_path, [0, 1], resample_dead_groups=1, reward=length_reward)


# --- paths, repetition, foresight --------------------------------------------------------------------------------


@pytest.mark.slow
def test_stock_sampling_with_shared_training_makes_stock_trls_step(checkpoint: Path, tmp_path: Path) -> None:
    half, ours = trained(checkpoint, tmp_path / "half", [0, 1], share_rollout=False)
    assert "on in training; stock TRL samples" in shared_prefix_line(half)
    _, stock = trained(checkpoint, tmp_path / "stock", [0, 1], shared_prefix=False)
    assert ours["loss"] == pytest.approx(stock["loss"], abs=1e-6)
    assert ours["grad_norm"] == pytest.approx(stock["grad_norm"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3", "cohere"])
def test_a_text_model_makes_stock_trls_step(family: str, tmp_path: Path) -> None:
    text = build_tiny_checkpoint(tmp_path / "text", family)
    logs = [trained(text, tmp_path / str(s), [None, None], shared_prefix=s)[1] for s in (True, False)]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], abs=1e-6)
    assert logs[0]["grad_norm"] == pytest.approx(logs[1]["grad_norm"], rel=1e-4)
    assert 0 < logs[0]["tokens/computed"] < logs[0]["tokens/stock"]


@pytest.mark.slow
def test_the_vision_tower_learns_at_a_rate_of_its_own(tiny: Path, tmp_path: Path) -> None:
    options = {"learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_steps": 1, "beta": 0.0}
    moved: dict[float | None, dict[str, torch.Tensor]] = {}
    for rate in (None, 1e-3, 1e-5):
        trainer = make_trainer(tiny, tmp_path / str(rate), [0, 1], **options)
        trainer.vision_learning_rate = rate
        before = {name: weight.clone() for name, weight in weights(trainer).items()}
        trainer.train()
        moved[rate] = {name: (weight - before[name]).abs().max() for name, weight in weights(trainer).items()}
    assert moved[1e-3] == moved[None]  # the same rate: bit-equal
    for name, most in moved[1e-5].items():  # Adam's first step moves a weight by the rate at most
        assert most <= (1.01e-5 if ".visual." in name else 1.01e-3), name
    vision = [name for name in moved[1e-5] if ".visual." in name]
    assert max(moved[1e-5][name] for name in vision) > 0.9e-5
    assert max(moved[None][name] for name in vision) > 0.9e-3


@pytest.mark.slow
def test_a_rate_for_a_vision_tower_that_does_not_train_is_refused(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, [0, 1])
    freeze_vision_tower(trainer.model)
    trainer.vision_learning_rate = 1e-5
    with pytest.raises(UserError, match=r"--vision_learning_rate 1e-05: no weight of a vision tower trains"):
        trainer.train()
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        QuestionArguments(dataset_name=["x"], vision_learning_rate=0.0)


@pytest.mark.slow
def test_a_model_that_cannot_share_takes_stock_trls_rows(tmp_path: Path, capsys: Any) -> None:
    text = build_tiny_checkpoint(tmp_path / "text", "gpt2")
    trainer, log = trained(text, tmp_path / "run", [None, None])
    assert not trainer.shared_prefix
    assert shared_prefix_line(trainer).startswith("shared prefix: off (log-probabilities of a packed row differ by")
    assert log["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "internvl"])
def test_models_whose_images_have_no_grids_train_by_stock_trls_rows(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_tiny_checkpoint(tmp_path / family, family)
    trainer = make_trainer(folder, tmp_path / "run", [0, 1], beta=0.0)
    before = {name: weight.clone() for name, weight in weights(trainer).items()}
    trainer.train()
    assert not trainer.shared_prefix
    assert shared_prefix_line(trainer).startswith("shared prefix: off (")
    moved = {name for name, weight in weights(trainer).items() if not torch.equal(weight, before[name])}
    assert any("vision_tower" in name for name in moved)
    assert any("layers." in name and "language_model" in name for name in moved)
    with pytest.raises(UserError, match="some questions have an image and some have none"):
        require_one_kind("some", trainer)


@pytest.mark.slow
def test_the_same_seed_twice_is_bit_equal(tiny: Path, tmp_path: Path) -> None:
    trainer, log = trained(tiny, tmp_path / "1", [0, 1, 2, None], max_steps=3)
    other_trainer, other_log = trained(tiny, tmp_path / "2", [0, 1, 2, None], max_steps=3)
    assert difference(trainer, other_trainer) == 0
    names = {"loss", "grad_norm", "reward", "entropy", "kl"}
    assert {name: log[name] for name in names} == {name: other_log[name] for name in names}


@pytest.mark.slow
def test_trying_the_longest_batch_changes_nothing(tiny: Path, tmp_path: Path, capsys: Any) -> None:
    plain, log = trained(tiny, tmp_path / "plain", [0, 1, 2, 3], max_steps=2)
    trainer = make_trainer(tiny, tmp_path / "tried", [0, 1, 2, 3], max_steps=2)
    trainer.add_callback(TryLongestBatch(trainer, [trainer.train_dataset[index] for index in (0, 1)]))
    trainer.train()
    output = capsys.readouterr().out
    assert "longest batch:" in output
    assert "shared prefix verified" in output
    assert difference(plain, trainer) == 0
    assert last_log(trainer)["loss"] == log["loss"]
    assert last_log(trainer)["tokens/computed"] == log["tokens/computed"]


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_longest_batch_is_tried_beside_what_later_steps_hold(tiny: Path, tmp_path: Path, accumulation: int) -> None:
    """As many bytes as the state that the first step makes, and the gradients of earlier micro-batches."""
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    trainer = make_trainer(tiny, tmp_path, [0, 1], **settings)
    weights = sum(weight.nbytes for weight in trainer.model.parameters())
    announced: list[int] = []

    class Announce(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            announced.append(bytes_to_come(trainer))

    trainer.add_callback(Announce())
    trainer.train()
    made = sum(value.nbytes for state in trainer.optimizer.state.values() for value in state.values() if value.dim())
    assert made == 2 * weights
    assert announced == [made + (weights if accumulation > 1 else 0)]
    assert bytes_to_come(trainer) == (weights if accumulation > 1 else 0)  # the state is there now


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_told_before_the_first_step(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, [0, 1])
    rows = [trainer.train_dataset[0]]
    trainer.add_callback(TryLongestBatch(trainer, rows))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.model.model.language_model.forward = full
    with pytest.raises(UserError, match="longest batch of this run does not fit: 1 prompts"):
        trainer.train()


def test_durations_read_well() -> None:
    assert [duration(s) for s in (45, 89, 125, 3600, 11100)] == ["45 s", "89 s", "2 min", "1 h 00 min", "3 h 05 min"]
