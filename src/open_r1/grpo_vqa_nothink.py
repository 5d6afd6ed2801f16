r"""No-think GRPO on medical multiple-choice questions about images: answers without reasoning.

torchrun --nproc_per_node=2 src/open_r1/grpo_vqa_nothink.py \
    --model_name_or_path CHECKPOINT --dataset_name DATA --output_dir OUT
"""

from open_r1.common.errors import run_command
from open_r1.training.command_line.flags import check_training_flags
from open_r1.vocabulary.modes import Mode


def main() -> int:
    """Check the flags, then load the libraries and train."""
    check_training_flags("grpo", __doc__)
    from open_r1.training.grpo_run import train_grpo

    return train_grpo(Mode.NOTHINK)


if __name__ == "__main__":
    run_command(main)
