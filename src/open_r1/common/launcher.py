"""A process ends with the one that started it: with torchrun, accelerate or a study's worker, however that one ends.

A launcher that is killed with SIGKILL cannot stop its processes; they would go on, and a second start would find the
folder taken. Linux sends them a SIGTERM then (prctl PR_SET_PDEATHSIG, which exec keeps); elsewhere a thread looks every
second. A training that gets the SIGTERM saves after its step. Standard library only.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LAUNCHERS = ("accelerate", "deepspeed")
_LOOK = 1.0  # seconds between two looks where nobody sends a signal


def end_with(parent: int) -> None:
    """Have a SIGTERM come when the process that started this one ends; at once if it is gone.

    Args:
        parent: its process id.
    """
    if not _ask_for_signal():
        threading.Thread(target=_watch, args=(parent,), name="launcher", daemon=True).start()
    if os.getppid() != parent:  # it was gone before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def end_with_launcher() -> None:
    """`end_with` the launcher; nothing for a command that a person has started, which may outlive its shell."""
    parent = os.getppid()
    if "TORCHELASTIC_RUN_ID" in os.environ or _is_launcher(parent):
        end_with(parent)


def _is_launcher(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return any(Path(word).name in _LAUNCHERS or word.startswith(_LAUNCHERS) for word in words[:3])


def _ask_for_signal() -> bool:
    """Whether the system will send the signal."""
    if sys.platform != "linux":
        return False
    try:
        return ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) == 0
    except (OSError, AttributeError):
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
