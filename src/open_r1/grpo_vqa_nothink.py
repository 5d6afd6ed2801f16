r"""No-think GRPO on medical multiple-choice questions about pictures: the answer alone.

torchrun --nproc_per_node=2 src/open_r1/grpo_vqa_nothink.py \
    --model_name_or_path CHECKPOINT --dataset_name DATA --output_dir OUT
"""

from open_r1.errors import run_command
from open_r1.launch import train_grpo
from open_r1.runs import Mode

if __name__ == "__main__":
    run_command(lambda: train_grpo(Mode.NOTHINK))
