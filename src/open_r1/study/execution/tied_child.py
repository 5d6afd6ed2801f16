"""Become a command that ends when its parent ends: `python tied_child.py PARENT_PID COMMAND...`.

A worker that is killed with SIGKILL cannot stop its child, and the next worker would train into the same folder.
Therefore the child gets a SIGTERM, which torchrun passes on to its processes. Imports little, to start fast.
"""

import os
import sys

from open_r1.common.launcher import end_with


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    end_with(int(parent))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
