"""The whole study of Med-R1 from one command: training runs, evaluation cells, and one report of them all.

    python scripts/run_matrix.py --base checkpoints/Qwen2.5-VL-3B-Instruct --data data/VQA --modes think,nothink \\
        --by modality,task --output_dir output/study --nproc_per_node 2 --train_args "--save_steps 200"

A run per mode and prepared set, each tested on every set of its own split family: with all 8 modalities and 5 tasks 26
runs and 178 cells, and beside them the base itself (--zero_shot, on) and supervised fine-tuning (--sft, off). The
trainings have the published settings of their mode unless --train_args or --sft_args says otherwise: no-think 2 epochs,
think 1, 4 prompts per optimizer step where --nproc_per_node divides 4, bfloat16; the plan shows them and the steps.

The same command continues: what is done is skipped, what was cut off goes on. What fails keeps no other waiting; the
end says what failed, and the exit status is 1. SIGTERM or Ctrl-C stops it with exit status 75 once the child has saved
its state. Several workers with the same command share the work, on one machine or through a shared disk; --executor
slurm submits the same work as jobs, and --emit snakemake prints it as a Snakefile. study.json says what the study is;
another base, other flags or other data in its folder are refused.
"""

import sys
from pathlib import Path

from open_r1.common.errors import run_command
from open_r1.study.run import run_study


def main() -> int:
    """Plan, print the plan, do this command's part of it."""
    return run_study(Path(__file__), __doc__, sys.argv[1:])


if __name__ == "__main__":
    run_command(main)
