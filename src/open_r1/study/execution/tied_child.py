"""Become a command that ends when its parent ends: `python leash.py PARENT_PID COMMAND...`.

A worker that is killed with SIGKILL cannot stop its child, and a second one would soon train into the same folder. The
child gets a SIGTERM then, and torchrun passes it on to its processes. Light: it starts at once.
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
