"""A reward that holds a training of a study as long as a file is there, so that it can be disturbed in the middle."""

import os
import time
from pathlib import Path
from typing import Any


def held_reward(completions: list, trainer_state: Any = None, **_: Any) -> list[float]:
    """Distinct characters of each completion; after the first step waits while HELD_RUNS/NAME is there, by job name."""
    name = os.environ.get("SLURM_JOB_NAME", "").split("-", 2)[-1]
    hold = Path(os.environ.get("HELD_RUNS", ".")) / (name or "none")
    while name and trainer_state is not None and trainer_state.global_step >= 1 and hold.exists():
        time.sleep(0.1)
    return [len(set(completion[0]["content"])) / 10 for completion in completions]
