"""Every log entry says how long a run has taken and will take, and its curves are drawn without being asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_trainers import make_trainer
from transformers import TrainerCallback

from open_r1.common.metrics_log import read_metrics
from open_r1.drawing import training_curves
from open_r1.training.setup.tracking import MetricsLog
from open_r1.training.watching import progress
from open_r1.training.watching.progress import CURVES, watch_progress
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


class Tracker(TrainerCallback):
    """Keeps what a tracker is sent."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.entries.append(dict(logs))


def watched(checkpoint: Path, output: Path, **settings: Any) -> tuple[Any, Tracker]:
    trainer, tracker = make_trainer(checkpoint, output, [0, 1], **settings), Tracker()
    for callback in (tracker, MetricsLog()):
        trainer.add_callback(callback)
    watch_progress(trainer)
    return trainer, tracker


@pytest.mark.slow
def test_times_stand_in_log_and_tracker_and_count_earlier_parts(checkpoint: Path, tmp_path: Path) -> None:
    trainer, tracker = watched(checkpoint, tmp_path, max_steps=3, save_strategy="steps", save_steps=1)
    trainer.train()
    entries = read_metrics(tmp_path) or []
    assert entries == json.loads(json.dumps(trainer.state.log_history))
    elapsed = [entry["elapsed_seconds"] for entry in entries]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] > 0
    assert [entry["elapsed_seconds"] for entry in tracker.entries] == elapsed
    steps = [entry for entry in entries if "grad_norm" in entry]
    first, second, last = [entry["remaining_seconds"] for entry in steps]
    assert first == pytest.approx(2 * elapsed[0], abs=0.2), "by the only step so far"
    assert 0 < second < first + elapsed[1]
    assert last == 0

    sums = tmp_path / "checkpoint-1" / "progress_0.json"
    sums.write_text(json.dumps(json.loads(sums.read_text()) | {"seconds": 5000.0}))
    continued, _ = watched(checkpoint, tmp_path, max_steps=4)
    continued.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    again = read_metrics(tmp_path) or []
    assert [entry["step"] for entry in again] == [1, 2, 3, 4, 4]
    assert again[0] == entries[0]
    assert 5000 < again[1]["elapsed_seconds"] < 5000 + 10 * elapsed[-1]
    assert again[1]["remaining_seconds"] == pytest.approx(again[1]["elapsed_seconds"], abs=0.2), "two of two steps"
    assert again[2]["remaining_seconds"] < 500, "the pace is this process's"


@pytest.mark.slow
def test_curves_are_drawn_at_saves_and_never_end_a_run(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: list[int] = []
    drawn = training_curves.curves_figure

    def counted(logs: Any, title: str = "") -> Any:
        sizes.extend(len(log) for log in logs.values())
        return drawn(logs, title)

    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    monkeypatch.setattr(training_curves, "curves_figure", counted)
    monkeypatch.setattr(progress, "MOST_TIME", 1e9)
    watched(checkpoint, tmp_path / "short", **settings)[0].train()
    assert sizes == [], "four steps are a trial"
    monkeypatch.setattr(progress, "FEWEST_STEPS", 1)
    watched(checkpoint, tmp_path / "run", **settings)[0].train()
    assert sizes == [3, 4, 5], "after each save from the third logged step on, and with the summary at the end"
    with Image.open(tmp_path / "run" / CURVES) as image:
        assert image.width == 1440
    monkeypatch.setattr(progress, "MOST_TIME", 1e-9)
    watched(checkpoint, tmp_path / "rare", **settings)[0].train()
    assert sizes[3:] == [5], "after the first save there was nothing to draw, and the next would cost too much"

    def broken(logs: Any) -> Any:
        raise RuntimeError("no canvas\nat all")

    monkeypatch.setattr(training_curves, "curves_figure", broken)
    trainer, _ = watched(checkpoint, tmp_path / "broken", max_steps=3)
    trainer.train()
    assert trainer.state.global_step == 3
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {CURVES} could not be drawn (RuntimeError: no canvas at all)"]
    assert not (tmp_path / "broken" / CURVES).exists()
