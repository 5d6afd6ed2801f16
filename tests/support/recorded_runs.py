"""Folders of trainings with logs, groups and alarms, made by hand."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECORD = {
    "base_model": "checkpoints/Qwen2.5-VL-3B",
    "data": {"sets": [{"path": "data/VQA/CT_384"}]},
    "method": "grpo",
    "mode": "nothink",
    "started": "2026-11-27T08:30:00+00:00",
    "status": "running",
    "completions_per_step": 16,
    "training_arguments": {"max_steps": 100, "num_train_epochs": 1},
}
SIZE = 4  # completions of a group


def write_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def group_line(step: int, name: str, rights: Iterable[int], texts: Iterable[str] | None = None, **more: Any) -> dict:
    """A line of groups.jsonl; the format reward is always earned, and the lengths are 10, 20, 30, ..."""
    accuracy = [float(right) for right in rights]
    mean = sum(accuracy) / len(accuracy)
    completions = {} if texts is None else {"completions": list(texts)}
    return {
        **{"step": step, "id": name, "problem": f"{name}: what is it? A) a cyst, B) none", "solution": "B"},
        **completions,
        "lengths": [10 * (place + 1) for place in range(len(accuracy))],
        "cut_off": [place == 3 for place in range(len(accuracy))],
        "rewards": {"accuracy": accuracy, "format": [1.0] * len(accuracy)},
        "advantages": [round(value - mean, 4) for value in accuracy],
        **{"left_out": False, "replaced": False},
        **more,
    }


def made_log(steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """What a trainer logs, with rewards that rise."""
    draw = random.Random(seed)
    return [
        {
            **{"step": step, "epoch": step / 100, "loss": 0.1, "grad_norm": 1 + draw.random(), "kl": step / 1000},
            **{
                "reward": 1 + 0.5 * step / steps + draw.gauss(0, 0.03),
                "reward_std": 0.4,
                "entropy": 1 - step / steps / 2,
            },
            **{"rewards/accuracy_reward/mean": 0.2 + 0.5 * step / steps, "rewards/format_reward/mean": 0.8},
            **{"completions/mean_length": 30.0, "completions/min_length": 9, "completions/max_length": 50 + step % 3},
            **{"step_time": 9.5, "frac_reward_zero_std": 0.25, "elapsed_seconds": 10.0 * step},
            "remaining_seconds": 10.0 * (100 - step),
        }
        for step in range(1, steps + 1)
    ]


def write_run(
    folder: Path,
    log: Iterable[Mapping[str, Any]],
    groups: Iterable[Mapping[str, Any]] | None = None,
    alarms: Iterable[Mapping[str, Any]] = (),
    **record: Any,
) -> Path:
    """A run folder; without groups it has no file of them."""
    write_lines(folder / "metrics.jsonl", log)
    (folder / "run.json").write_text(json.dumps(RECORD | record))
    if groups is not None:
        write_lines(folder / "groups.jsonl", groups)
    if alarms:
        write_lines(folder / "alarms.jsonl", alarms)
    return folder
