"""The fixed probe: asked without images when it is due, equal to asking by hand, and without effect on the training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import make_trainer, weights

from open_r1.common.errors import UserError
from open_r1.training.grpo.blind_answers import BlindAnswers
from open_r1.training.watching.alarms import RIGHT_WITHOUT_IMAGE
from open_r1.training.watching.probe import QUESTIONS, ProbeWithoutImage
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def trainer_of(checkpoint: Path, output: Path, steps: int) -> Any:
    trainer = make_trainer(checkpoint, output, [0, 1, 2, None], max_steps=steps, lora=True, lora_dropout=0.3)
    plain = trainer.train_dataset
    rows = plain.with_format(None).add_column("solution", ["A", "B", "C", "A"])
    trainer.train_dataset = rows.with_transform(plain.format["format_kwargs"]["transform"])
    return trainer


@pytest.mark.slow
def test_it_asks_when_due_and_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    plain = trainer_of(checkpoint, tmp_path / "plain", 3)
    plain.train()
    probed = trainer_of(checkpoint, tmp_path / "probed", 3)
    blind = BlindAnswers(probed.processing_class, Mode.NOTHINK)
    probed.add_callback(ProbeWithoutImage(probed, blind, 3))
    probed.train()
    before, after = weights(plain), weights(probed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    values = [entry.get(RIGHT_WITHOUT_IMAGE) for entry in probed.state.log_history if "loss" in entry]
    assert values[1] is None
    letters = blind.letters([probed.train_dataset[place] for place in range(3)], probed.model, probed.accelerator)
    by_hand = [answer[letter] for answer, letter in zip(letters, "ABC", strict=True) if answer is not None]
    assert len(by_hand) == 3
    assert values[2] == pytest.approx(sum(by_hand) / 3, abs=1e-6), "the weights after step 3"
    assert values[0] != values[2]
    assert probed.model.training


def test_questions_are_spread_over_the_set(checkpoint: Path, tmp_path: Path) -> None:
    class Rows:
        def __len__(self) -> int:
            return 10 * QUESTIONS

        def __getitem__(self, place: int) -> dict[str, Any]:
            return {"id": place}

    class Second:
        process_index, num_processes = 1, 2

    class Trainer:
        train_dataset, accelerator = Rows(), Second()

    probe = ProbeWithoutImage(Trainer(), None, 5)  # pyright: ignore[reportArgumentType]
    probe.on_train_begin(None, None, None)
    assert [row["id"] for row in probe._rows] == list(range(10, 10 * QUESTIONS, 20))


@pytest.mark.slow
def test_thoughts_before_the_answer_are_refused(checkpoint: Path) -> None:
    trainer = make_trainer(checkpoint, checkpoint / "x", [0])
    with pytest.raises(UserError, match="--probe_steps: in the mode think an answer follows"):
        BlindAnswers(trainer.processing_class, Mode.THINK)
