"""A loss or a gradient that is not finite stops the run before the update, judged once per step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import make_trainer, weights

from open_r1.common.errors import UserError
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("qwen2_5_vl"), "qwen2_5_vl")


class _Infinite(torch.autograd.Function):
    """A finite number with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        return gradient * torch.inf


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damaged", "quantity"),
    [(lambda loss: loss * torch.nan, "loss"), (_Infinite.apply, "gradient")],
    ids=["loss", "gradient"],
)
def test_the_run_stops_before_the_update_and_says_what_is_not_finite(
    checkpoint: Path, tmp_path: Path, damaged: Any, quantity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(
        checkpoint, tmp_path, [0, 1], gradient_accumulation_steps=2, per_device_train_batch_size=1, verify=False
    )
    losses = []
    compute = trainer._compute_loss

    def first_damaged(model: Any, inputs: Any) -> torch.Tensor:
        losses.append(compute(model, inputs))
        return losses[-1] if len(losses) > 1 else damaged(losses[-1])

    monkeypatch.setattr(trainer, "_compute_loss", first_damaged)
    before = weights(trainer)
    with pytest.raises(UserError, match=rf"the {quantity} of step 1 is not finite; stopped before the update"):
        trainer.train()
    assert len(losses) == 2  # both micro-batches were computed: no look at the first one's loss
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
