"""Become a command that ends when its parent ends: `python leash.py PARENT_PID COMMAND...`.

A worker that is killed with SIGKILL cannot stop its child, and a second one would soon train into the same folder.
Linux sends the child a SIGTERM then (prctl PR_SET_PDEATHSIG, which execv keeps); torchrun passes it on to its
processes. Elsewhere the command just runs. Nothing is imported here but the standard library: it starts at once.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before the line above
        raise SystemExit(128 + signal.SIGTERM)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
