"""Checkpoints damaged in many ways: continued from an older one, or refused by name."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from open_r1.common.errors import UserError
from open_r1.training.recovery.checkpoint_store import newest_first, read_about
from open_r1.training.recovery.resume import checkpoint_to_continue
from open_r1_testbed.fault_scenarios import LAYOUTS, Site, _interrupted, require_equal, tail

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
    about = read_about(folder)
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


def damages(site: Site, continued: Iterable[str] = ("weights cut",)) -> str:
    """Each kind of damage to the newest checkpoint falls back to the one before; to all of them is refused by name.

    Args:
        site: where.
        continued: the kinds after which the run is really continued and compared.
    """
    whole, layout = site.finished(LAYOUTS[0]), LAYOUTS[0]
    ongoing = set(continued)
    interrupted = _interrupted(site, layout)
    for name, harm in DAMAGES.items():
        output = site.fresh()
        shutil.copytree(interrupted, output)
        newest, before = newest_first(output)[:2]
        harm(newest)
        told: list[str] = []
        assert checkpoint_to_continue(output, None, told.append) == before, name
        assert any(newest.name in line and "damaged" in line for line in told), name
        if name in ongoing:
            run = site.start(output, layout)
            assert run.wait() == [0], tail(run)
            require_equal(output, whole)
        shutil.rmtree(output)
        shutil.copytree(interrupted, output)
        for path in newest_first(output):
            harm(path)
        refusal = _refusal(output)
        assert all(path.name in refusal for path in newest_first(output)), name
        shutil.rmtree(output)
    return f"{len(DAMAGES)} kinds of damage: each fell back to the checkpoint before, or was refused by name"


def _refusal(output: Path) -> str:
    try:
        checkpoint_to_continue(output, None, lambda _: None)
    except UserError as error:
        return str(error)
    return ""
