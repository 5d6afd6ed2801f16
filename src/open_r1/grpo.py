r"""GRPO on text questions with the rewards of open-medical-r1, for text models and VLMs.

accelerate launch --config_file recipes/accelerate_configs/zero3.yaml src/open_r1/grpo.py \
    --config recipes/HuatuoGPT-o1/grpo/config_medxpert_usmle.yaml
"""

from open_r1.common.errors import run_command
from open_r1.rewards.registry import PUBLISHED
from open_r1.training.command_line.flags import check_training_flags
from open_r1.vocabulary.modes import Mode


def main() -> int:
    """Check the flags, then load the libraries and train."""
    defaults = {"reward_funcs": list(PUBLISHED)}
    check_training_flags("grpo", __doc__, defaults)
    from open_r1.training.grpo_run import train_grpo

    return train_grpo(Mode.THINK, **defaults)


if __name__ == "__main__":
    run_command(main)
