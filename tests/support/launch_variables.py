"""What `accelerate launch` tells the processes that it starts, for processes that a test starts itself."""

import os
from pathlib import Path
from typing import Any

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env


def launch_variables(recipe: Path, processes: int) -> dict[str, str]:
    """The environment variables that a configuration file of accelerate leads to, without those of torchrun.

    Args:
        recipe: the file.
        processes: `--num_processes`.
    """
    words = ["--config_file", str(recipe), "--num_processes", str(processes), "--main_process_port", "0", "script.py"]
    launch: Any = _validate_launch_command(launch_command_parser().parse_args(words))
    options, defaults, _ = launch
    if options.use_deepspeed:
        options.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        variables = prepare_deepspeed_cmd_env(options)[1]
    else:
        variables = prepare_multi_gpu_env(options) | {"ACCELERATE_USE_CPU": str(options.use_cpu).lower()}
    return {name: value for name, value in variables.items() if os.environ.get(name) != value}
