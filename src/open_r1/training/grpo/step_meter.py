"""Cost of an optimizer step: seconds by phase, tokens, and on a GPU peak memory and model FLOPs utilization."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from open_r1.modeling.prompt_batch import PromptBatch

# Dense bfloat16 peak in FLOP/s as published by the vendor, by a word in the device's name.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12}


class StepMeter:
    """Adds up seconds and counts of a step, and returns them as metrics at its end."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float | torch.Tensor] = defaultdict(float)
        self.total: dict[str, float] = defaultdict(float)
        """Seconds by phase (rollout, reward, train) over all steps so far."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the duration of a block to a phase of this step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Measure nothing within a block, such as a check that does not belong to the step."""
        saved: list[tuple[dict[str, Any], dict[str, Any]]]
        saved = [(totals, dict(totals)) for totals in (self._seconds, self._counts)]
        try:
            yield
        finally:
            for totals, values in saved:
                totals.clear()
                totals.update(values)

    def count(self, name: str, amount: float | torch.Tensor) -> None:
        """Add to a counter of this step. What a GPU knows is asked for at the end of the step, not in every pass."""
        self._counts[name] = self._counts[name] + amount

    def count_pass(self, model: Any, prompts: PromptBatch, completion_mask: torch.Tensor) -> None:
        """Count the tokens of one pass over groups, and those that a row per completion would need.

        Args:
            model: the policy, unwrapped.
            prompts: B prompts.
            completion_mask: (B, G, C) 1 where a token is real.
        """
        backward = torch.is_grad_enabled()
        tokens, count, group = sum(prompts.lengths), len(prompts.lengths), completion_mask.size(1)
        completions = completion_mask.sum()
        computed = tokens - count + completions
        self.count("computed", computed)
        self.count("stock", group * tokens + completions)
        if backward:
            self.count("prompts", count)
            self.count("completions", count * group)
        if torch.cuda.is_available():
            patches = float(prompts.vision["image_grid_thw"].prod(dim=-1).sum()) if prompts.vision else 0.0
            self.count("flops", useful_flops(model, computed, completions, patches, backward))

    def flush(self, peak_flops: float | None = None) -> dict[str, float]:
        """Return the metrics of the step that ends here, and start the next one.

        Seconds are wall clock: `rollout` (images, prompts, sampling, reference log-probabilities), `reward`, and
        `train` (the rest of the step: forward, backward, optimizer).
        `tokens/computed` counts tokens that the model computed; `tokens/stock`, what a row per completion would need.
        """
        step = self._seconds["step"]
        rollout, reward = self._seconds["rollout"], self._seconds["reward"]  # rewards are computed within the rollout
        counts = defaultdict(float, {name: float(amount) for name, amount in self._counts.items()})
        metrics = {"seconds/rollout": rollout - reward, "seconds/reward": reward, "seconds/train": step - rollout}
        if step:
            metrics["prompts_per_second"] = counts["prompts"] / step
            metrics["completions_per_second"] = counts["completions"] / step
        for name in ("computed", "stock"):
            metrics[f"tokens/{name}"] = counts[name]
        if peak_flops and step:
            metrics["mfu"] = counts["flops"] / step / peak_flops
        if torch.cuda.is_available():
            metrics["gpu_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        for phase in ("rollout", "reward", "train"):
            self.total[phase] += metrics[f"seconds/{phase}"]
        self.clear()
        return metrics

    def clear(self) -> None:
        """Discard the measurements of the current step."""
        self._seconds.clear()
        self._counts.clear()


def peak_flops() -> float | None:
    """Dense bfloat16 peak of this GPU in FLOP/s; None on a CPU or a device not in `PEAK_FLOPS`."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for word, peak in PEAK_FLOPS.items() if word in name), None)


def useful_flops(model: Any, tokens: Any, scored: Any, patches: float, backward: bool) -> Any:
    """FLOPs that the tokens need: 2 per weight and token forward, 4 more backward (Kaplan et al. 2020, section 2.1).

    Weights of the language model are counted per token, of the head per scored token, of the vision tower per patch;
    embedding is a lookup. Products of queries and keys are left out, and so is recomputation.

    Args:
        model: the policy, unwrapped.
        tokens: text and image tokens in the language model.
        scored: completion tokens, which reach the head.
        patches: image patches in the vision tower.
        backward: whether a backward pass follows.

    Returns:
        A number, or a tensor where `tokens` and `scored` are tensors.
    """
    factor = 6 if backward else 2
    vision = float(sum(p.numel() for name, p in model.named_parameters() if ".visual." in f".{name}"))
    language = float(sum(p.numel() for name, p in model.named_parameters() if "layers." in name))
    head = model.get_output_embeddings().weight.numel()
    return factor * (language * tokens + head * scored + vision * patches)
