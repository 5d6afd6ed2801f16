"""Checkpoints damaged in many ways: continued from an older one, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from open_r1.common.errors import UserError
from open_r1.training.recovery.checkpoint_store import checkpoint_manifest, newest_first
from open_r1.training.recovery.resume import checkpoint_to_continue
from open_r1_testbed.fault_scenarios import LAYOUTS, Site, require_equal, tail

Harm = Callable[[Path], object]


def _cut(pattern: str) -> Harm:
    def harm(folder: Path) -> None:
        path = next(iter(sorted(folder.glob(pattern))))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return harm


def _gone(pattern: str) -> Harm:
    return lambda folder: next(iter(sorted(folder.glob(pattern)))).unlink()


def _flipped(pattern: str) -> Harm:
    def harm(folder: Path) -> None:
        path = next(iter(sorted(folder.glob(pattern))))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return harm


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _other_step(folder: Path) -> None:
    about = checkpoint_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps(about | {"step": about["step"] + 1}))


DAMAGES: dict[str, Harm] = {
    "weights missing": _gone("*.safetensors"),
    "weights cut": _cut("*.safetensors"),
    "weights: one bit": _flipped("*.safetensors"),
    "optimizer missing": _gone("optimizer.pt"),
    "optimizer cut": _cut("optimizer.pt"),
    "optimizer: one bit": _flipped("optimizer.pt"),
    "scheduler missing": _gone("scheduler.pt"),
    "scheduler cut": _cut("scheduler.pt"),
    "random state missing": _gone("rng_state*.pth"),
    "random state cut": _cut("rng_state*.pth"),
    "trainer state missing": _gone("trainer_state.json"),
    "trainer state: one bit": _flipped("trainer_state.json"),
    "sums missing": _gone("progress_*.json"),
    "configuration cut": _cut("config.json"),
    "manifest missing": _gone("manifest.json"),
    "manifest cut": _cut("manifest.json"),
    "manifest of another step": _other_step,
    "weights a folder": lambda folder: (_gone("*.safetensors")(folder), (folder / "model.safetensors").mkdir()),
    "everything missing": _emptied,
}


def damage_newest(site: Site, name: str, resume: bool = False) -> str:
    """One kind of damage: to the newest checkpoint, the one before is taken; to all of them, they are refused by name.

    Args:
        site: where the runs are.
        name: a key of `DAMAGES`.
        resume: really resume the run with the damaged checkpoint and compare it with the uninterrupted one.
    """
    harm, layout = DAMAGES[name], LAYOUTS[0]
    output = site.interrupted_copy(layout)
    newest, previous = newest_first(output)[:2]
    harm(newest)
    messages: list[str] = []
    assert checkpoint_to_continue(output, None, messages.append) == previous
    assert any(newest.name in message and "damaged" in message for message in messages)
    if resume:
        run = site.start(output, layout)
        assert run.wait() == [0], tail(run)
        require_equal(output, site.finished(layout))
    shutil.rmtree(output)
    output = site.interrupted_copy(layout)
    for path in newest_first(output):
        harm(path)
    refusal = _refusal(output)
    assert all(path.name in refusal for path in newest_first(output))
    shutil.rmtree(output)
    return f"{name}: the checkpoint before was taken{' and the run equal to the bit' if resume else ''}, or all refused"


def _refusal(output: Path) -> str:
    try:
        checkpoint_to_continue(output, None, lambda _: None)
    except UserError as error:
        return str(error)
    return ""
