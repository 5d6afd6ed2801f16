"""A training in place of the real one, for recipes/slurm/train_vllm.sbatch: asks the server once.

torchrun tests/support/stand_in_training.py --model_name_or_path MODEL --seconds SECONDS, and what the recipe adds
"""

import argparse
import os
import time
import urllib.request


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model_name_or_path", "use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_port"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    flags = parser.parse_args()
    url = f"http://{flags.vllm_server_host}:{flags.vllm_server_port}/health"
    with urllib.request.urlopen(url, timeout=10) as answer:
        loaded = answer.read().decode()
    rank, processes, node = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "SLURMD_NODENAME"))
    print(f"training {rank} of {processes} on {node}: --vllm_mode {flags.vllm_mode}, server of {loaded}", flush=True)
    time.sleep(flags.seconds)
    print(f"training {rank} is done", flush=True)


if __name__ == "__main__":
    main()
