"""The logs of several training runs, to be drawn in one figure."""

from collections.abc import Sequence
from pathlib import Path

from open_r1.drawing.training_curves import Log, read_log
from open_r1.evaluation.comparing.run_names import named_apart


def read_logs(run_dirs: Sequence[Path]) -> dict[str, Log]:
    """The log of each run folder, by a short name.

    Raises:
        UserError: one has no log.
    """
    names = named_apart([path.resolve() for path in run_dirs])
    return dict(zip(names, map(read_log, run_dirs), strict=True))
