"""Damaged and hostile files through every door: `python scripts/fuzz.py --files 20000 --seed 0` (see its --help)."""

from open_r1.common.errors import run_command
from open_r1_testbed.fuzzing import main

if __name__ == "__main__":
    run_command(main)
