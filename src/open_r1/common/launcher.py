"""Ends a process when its launcher ends (torchrun, accelerate or a study's worker), even if the launcher is killed.

A launcher that is killed with SIGKILL cannot stop its processes. They would keep running and keep the output folder
locked. On Linux the system sends them a SIGTERM (prctl PR_SET_PDEATHSIG, which exec keeps); elsewhere a thread checks
every second. A training saves a checkpoint when it gets the SIGTERM. Standard library only.
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
_POLL = 1.0  # seconds between two checks where the system sends no signal


def end_with(parent: int) -> None:
    """Send this process a SIGTERM when its parent ends; at once if the parent has already ended.

    A parent that ignores SIGTERM, as that of recipes/slurm does, passes this on; here SIGTERM acts again.

    Args:
        parent: process id of the parent.
    """
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not _request_signal():
        threading.Thread(target=_watch, args=(parent,), name="launcher", daemon=True).start()
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def end_with_launcher() -> None:
    """`end_with` the launcher. A command that was started from a shell may outlive it, so nothing is done then."""
    parent = os.getppid()
    if "TORCHELASTIC_RUN_ID" in os.environ or _is_launcher(parent):
        end_with(parent)


def _is_launcher(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return any(Path(word).name in _LAUNCHERS or word.startswith(_LAUNCHERS) for word in words[:3])


def _request_signal() -> bool:
    """Ask the system for a SIGTERM at the parent's death; returns whether it will send one."""
    if sys.platform != "linux":
        return False
    try:
        return ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) == 0
    except (OSError, AttributeError):
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os.kill(os.getpid(), signal.SIGTERM)
