"""What the demos have in common: flags, a folder of their own, steps that are commands a user could type."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError

PROCESSES = 2

# Two threads per process would spin on two cores that two processes share.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def read_flags(description: str | None, output_dir: str, max_steps: int, prompts: int) -> argparse.Namespace:
    """The command line of a demo whose GRPO takes `prompts` prompts per step."""
    parser = CommandParser(description=description)
    parser.add_argument("--output_dir", type=Path, default=Path(output_dir), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the data, of all that is taught, and of GRPO")
    parser.add_argument(
        "--max_steps", type=int, default=max_steps, help=f"GRPO steps of {prompts} prompts x 8 completions"
    )
    parser.add_argument("--shared_prefix", default="true", help="false: the same steps on stock TRL (much slower)")
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier demo in that folder first")
    return parser.parse_args()


def read_set_flags(description: str, items: str, train: int, test: int) -> argparse.Namespace:
    """The command line of a generator of `train` + `test` things called `what`."""
    parser = CommandParser(description=description)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--train", type=int, default=train, help=f"{items} to train on (default: %(default)s)")
    parser.add_argument("--test", type=int, default=test, help=f"{items} to test on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Make room for the demo; an earlier one is only removed when asked."""
    marker = folder / ".demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise UserError(f"{folder} holds something else than a demo; name another --output_dir")
        if not overwrite:
            raise UserError(f"{folder} holds an earlier demo; remove it, use --overwrite, or name another --output_dir")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()


def quote(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def step(title: str, command: str, quiet: bool = False) -> None:
    """Run one command from the repository's root; its failure ends the demo."""
    print(f"\n== {title}\n$ {command}", flush=True)
    start = time.monotonic()
    program, *words = shlex.split(command)
    launcher = ["-m", "torch.distributed.run"] if program == "torchrun" else []
    run = subprocess.run(
        [sys.executable, *launcher, *words],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL if quiet else None,
        check=False,
    )
    if run.returncode:
        raise UserError(f"that command failed with exit status {run.returncode}; its own output above says why")
    print(f"({time.monotonic() - start:.0f} s)", flush=True)


def end_line(folder: Path, checkpoints: Sequence[Path], start: float) -> str:
    """Where everything lies, and what it took since `start`."""
    return f"images: {folder / 'report'}   checkpoints: {', '.join(map(str, checkpoints))}; {time_taken(start)}"


def time_taken(start: float) -> str:
    """Seconds since `start`, a `time.monotonic()`: in all, and on the cores."""
    used = os.times()
    return f"{time.monotonic() - start:.0f} s in all, {used.children_user + used.children_system:.0f} CPU-s"
