r"""No-think GRPO on medical multiple-choice questions about pictures: the answer alone.

torchrun --nproc_per_node=2 src/open_r1/grpo_vqa_nothink.py \
    --model_name_or_path CHECKPOINT --dataset_name DATA --output_dir OUT
"""

from open_r1.errors import run_command
from open_r1.runs import Mode
from open_r1.training_flags import check_training_flags


def main() -> int:
    """Judge the flags, then load the libraries and train."""
    check_training_flags("grpo", __doc__)
    from open_r1.launch import train_grpo

    return train_grpo(Mode.NOTHINK)


if __name__ == "__main__":
    run_command(main)
