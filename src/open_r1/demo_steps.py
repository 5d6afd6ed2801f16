"""What the demos have in common: a folder of their own, and steps that are commands a user could type."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from open_r1.errors import UserError

# Two threads per process would spin on two cores that two processes share.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


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


def step(what: str, command: str, quiet: bool = False) -> None:
    """Run one command from the repository's root; its failure ends the demo."""
    print(f"\n== {what}\n$ {command}", flush=True)
    begun = time.monotonic()
    program, *words = shlex.split(command)
    launcher = ["-m", "torch.distributed.run"] if program == "torchrun" else []
    done = subprocess.run(
        [sys.executable, *launcher, *words],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL if quiet else None,
        check=False,
    )
    if done.returncode:
        raise UserError(f"that command failed with exit status {done.returncode}; its own output above says why")
    print(f"({time.monotonic() - begun:.0f} s)", flush=True)
