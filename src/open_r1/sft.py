r"""Supervised fine-tuning on medical text questions: the baseline of GRPO.

torchrun --nproc_per_node=2 src/open_r1/sft.py \
    --model_name_or_path CHECKPOINT --dataset_name DATA --output_dir OUT
"""

from open_r1.common.errors import run_command
from open_r1.training.command_line.flags import check_training_flags


def main() -> int:
    """Check the flags, then load the libraries and train."""
    check_training_flags("sft", __doc__)
    from open_r1.training.sft_run import train_sft

    return train_sft()


if __name__ == "__main__":
    run_command(main)
