"""Become a command that ends when its parent ends: `python tied_child.py PARENT_PID COMMAND...`.

A worker that is killed with SIGKILL cannot stop its child, and the next worker would train into the same folder.
Therefore the child gets a SIGTERM, which torchrun passes on to its processes. SIGUSR2, with which SLURM announces the
end of a job's time to every process of it, is left to the worker. Imports little, to start fast.
"""

import os
import signal
import sys

from open_r1.common.launcher import end_with


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    end_with(int(parent))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # which the command inherits
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
