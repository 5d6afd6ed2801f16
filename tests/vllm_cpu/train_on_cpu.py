"""Run a training script with vLLM on a CPU: python train_on_cpu.py SCRIPT FLAGS...

vLLM's CPU backend packs weights when it has loaded them and drops the originals, so that new weights cannot be loaded
(vLLM 0.31). Here it keeps them and multiplies with plain torch, as it does for layers that it cannot pack.
`PLAIN_PROMPTS=0` hands vLLM the prompts as TRL has them, for the test that this is noticed.
"""

import os
import runpy
import sys

import torch
import vllm.model_executor.layers.utils as layers  # pyright: ignore[reportMissingImports]

from open_r1.training.grpo.vllm_sampling import ColocatedLLM


def keep_weights(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]  # as vLLM itself does


layers.dispatch_cpu_unquantized_gemm = keep_weights
if os.environ.get("PLAIN_PROMPTS") == "0":
    ColocatedLLM._request = lambda self, prompt: prompt  # type: ignore[method-assign]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
