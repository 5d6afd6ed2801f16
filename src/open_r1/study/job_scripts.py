"""The study as a job script: an array job for SLURM, or a shell script with all commands in order."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1.study.execution.commands import Commands
from open_r1.study.execution.worker import INTERRUPTED
from open_r1.study.planning.plan import Item

_REPLACED_FLAGS = ("--emit", "--shard")


def shell(commands: Commands, items: Sequence[Item], cells: Sequence[Path], working_folder: Path) -> str:
    """A bash script of all remaining commands, each with its log; after a failure the next command runs.

    Args:
        commands: of the study.
        items: the remaining work.
        cells: the result files that the report at the end reads.
        working_folder: the folder that relative paths refer to.
    """
    lines = [
        "#!/bin/bash",
        f"# {len(items)} commands and the report; run_matrix.py with the same flags continues where this stopped",
        f"cd {shlex.quote(str(working_folder))} || exit 2",
        f"mkdir -p {shlex.quote(str(commands.folder.path / 'logs'))}",
        "failed=()",
    ]
    for item in items:
        log = shlex.quote(str(commands.folder.log(item)))
        lines += ["", f"echo {shlex.quote(item.name)}"]
        lines.append(f"{shlex.join(commands.command_of(item))} >> {log} 2>&1 || failed+=({shlex.quote(item.name)})")
    lines += ["", shlex.join(commands.report(cells)) + " || failed+=(report)"]
    lines += ['if (( ${#failed[@]} )); then echo "failed: ${failed[*]}"; exit 1; fi']
    return "\n".join(lines) + "\n"


def slurm(commands: Commands, script: Path, arguments: Sequence[str], task_count: int, working_folder: Path) -> str:
    """An sbatch script: one task per run with its cells, each a worker that continues after a preemption.

    Args:
        commands: of the study.
        script: scripts/run_matrix.py.
        arguments: of this command; --emit and --shard are replaced.
        task_count: tasks of the array.
        working_folder: the folder that relative paths refer to.
    """
    worker_command = shlex.join([sys.executable, str(script), *_without(arguments)])
    gpus = commands.flags.nproc_per_node
    return f"""#!/bin/bash
# sbatch this file. Partition, account and time limit are your cluster's: add them here or give them to sbatch.
# One task per run with its cells; the one that finishes last writes the report. A task that is preempted saves its
# state, exits with {INTERRUPTED} and is queued again. To continue an array that was cancelled, sbatch this file again.
#SBATCH --job-name=open-r1-study
#SBATCH --array=1-{task_count}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
cd {shlex.quote(str(working_folder))} || exit 2
{worker_command} --shard "$SLURM_ARRAY_TASK_ID/{task_count}" &
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
    """The arguments without the flags that the job script sets."""
    remaining, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in _REPLACED_FLAGS:
            skip = True
        elif word.partition("=")[0] not in _REPLACED_FLAGS:
            remaining.append(word)
    return remaining
