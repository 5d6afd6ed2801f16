"""The study as a job script for somebody else's scheduler: an array job for SLURM, or plain commands in order."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1.study.execution.commands import Commands
from open_r1.study.execution.worker import INTERRUPTED
from open_r1.study.planning.plan import Item

_LEFT_OUT = ("--emit", "--shard")


def shell(commands: Commands, items: Sequence[Item], cells: Sequence[Path], here: Path) -> str:
    """A bash script of every command that is left, each with its log; a failure keeps no other waiting.

    Args:
        commands: of the study.
        items: what is left to do.
        cells: the result files that the report at the end is made from.
        here: the folder that relative paths are relative to.
    """
    lines = [
        "#!/bin/bash",
        f"# {len(items)} commands and the report; run_matrix.py with the same flags goes on where this stopped",
        f"cd {shlex.quote(str(here))} || exit 2",
        f"mkdir -p {shlex.quote(str(commands.folder.path / 'logs'))}",
        "failed=()",
    ]
    for item in items:
        log = shlex.quote(str(commands.folder.log(item)))
        lines += ["", f"echo {shlex.quote(item.name)}"]
        lines.append(f"{shlex.join(commands.of(item))} >> {log} 2>&1 || failed+=({shlex.quote(item.name)})")
    lines += ["", shlex.join(commands.report(cells)) + " || failed+=(report)"]
    lines += ['if (( ${#failed[@]} )); then echo "failed: ${failed[*]}"; exit 1; fi']
    return "\n".join(lines) + "\n"


def slurm(commands: Commands, script: Path, arguments: Sequence[str], parts: int, here: Path) -> str:
    """An sbatch script: a task per run with its cells, each a worker that continues after a preemption.

    Args:
        commands: of the study.
        script: scripts/run_matrix.py.
        arguments: its own, of which --emit is left out.
        parts: tasks.
        here: the folder that relative paths are relative to.
    """
    own = shlex.join([sys.executable, str(script), *_without(arguments)])
    gpus = commands.flags.nproc_per_node
    return f"""#!/bin/bash
# sbatch this file. Partition, account and time limit are your cluster's: add them here or give them to sbatch.
# A task per run with its cells; the one that finishes last writes the report. A task that is preempted saves its
# state, exits with {INTERRUPTED} and is queued again; a whole array that was stopped is continued by the same sbatch.
#SBATCH --job-name=open-r1-study
#SBATCH --array=1-{parts}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
cd {shlex.quote(str(here))} || exit 2
{own} --shard "$SLURM_ARRAY_TASK_ID/{parts}" &
child=$!
trap 'kill -TERM "$child"' TERM
while true; do
    wait "$child"
    code=$?
    kill -0 "$child" 2> /dev/null || break
done
if [ "$code" -eq {INTERRUPTED} ]; then scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; fi
exit "$code"
"""


def _without(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that the script sets itself."""
    kept, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in _LEFT_OUT:
            skip = True
        elif word.partition("=")[0] not in _LEFT_OUT:
            kept.append(word)
    return kept
