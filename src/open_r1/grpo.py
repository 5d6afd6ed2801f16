r"""GRPO on text questions with the rewards of open-medical-r1; a VLM may be trained on them too.

accelerate launch --config_file recipes/accelerate_configs/zero3.yaml src/open_r1/grpo.py \
    --config recipes/HuatuoGPT-o1/grpo/config_medxpert_usmle.yaml
"""

from open_r1.errors import run_command
from open_r1.launch import train_grpo
from open_r1.runs import Mode
from open_r1.text_rewards import PUBLISHED

if __name__ == "__main__":
    run_command(lambda: train_grpo(Mode.THINK, reward_funcs=list(PUBLISHED)))
