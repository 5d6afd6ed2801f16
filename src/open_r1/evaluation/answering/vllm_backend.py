"""The same questions answered by vLLM, for large models and long completions on a GPU.

Prompts, images, limits and forbidden tokens are those of the transformers backend; decoding is vLLM's own, so its
completions are not promised to be equal token for token, and the manifest says which backend wrote a file. vLLM is an
extra (`pip install '.[vllm]'`) and is imported only here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.checkpoints.families import forbidden_token_ids
from open_r1.checkpoints.loading import resolve_dtype
from open_r1.checkpoints.names import ADAPTER
from open_r1.common.errors import UserError
from open_r1.common.optional_packages import require_vllm
from open_r1.evaluation.answering.encoder import Encoded, Encoder
from open_r1.evaluation.answering.generator import Completion, end_tokens
from open_r1.evaluation.answering.sampling import keyed
from open_r1.evaluation.answering.settings import InferenceSettings, Sampling

NEVER = -100.0
"""The lowest bias that vLLM's `logit_bias` takes: the token's odds are divided by e^100."""


class VllmEncoder(Encoder):
    """Leaves cutting images into patches to vLLM, which does it itself."""

    def _encode(self, texts: list[str], image_of: list[int], images: list[Image.Image]) -> list[dict[str, Any]]:
        return [
            request(text, None if image < 0 else images[image]) for text, image in zip(texts, image_of, strict=True)
        ]


def request(text: str, image: Image.Image | None) -> dict[str, Any]:
    """One prompt as `LLM.generate` takes it: the rendered text with one placeholder, which vLLM widens itself."""
    return {"prompt": text} if image is None else {"prompt": text, "multi_modal_data": {"image": image}}


def decoding(
    sampling: Sampling, names: Sequence[str], max_new_tokens: int, ends: list[int], forbidden: list[int]
) -> list[dict[str, Any]]:
    """Arguments of `SamplingParams` for every completion, the samples of a question next to each other.

    Every sample has a seed of its own, from (seed, question, sample). Settings that a checkpoint's
    generation_config.json may hold (repetition penalty, top-k, top-p) are set to "off".
    """
    common: dict[str, Any] = {
        "max_tokens": max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "stop_token_ids": ends,
        "logit_bias": dict.fromkeys(forbidden, NEVER) or None,
        "skip_special_tokens": True,
    }
    if sampling.is_greedy:
        return [dict(common) for _ in names]
    return [
        common | {"seed": int(keyed(sampling.seed, name, sample).integers(2**31))}
        for name in names
        for sample in range(sampling.count)
    ]


def require_backend() -> None:
    """Raise a `UserError` unless vLLM is installed."""
    require_vllm("--backend vllm", "leave --backend out to use transformers")


class VllmGenerator:
    """A checkpoint that answers batches through `vllm.LLM`.

    Args:
        settings: the flags.
        folder: the checkpoint's folder, with whole weights.
        encoder: made by `VllmEncoder`.

    Raises:
        UserError: vLLM is not installed, or the checkpoint is an adapter that is not merged.
    """

    def __init__(self, settings: InferenceSettings, folder: Path, encoder: Encoder) -> None:
        require_backend()
        from transformers import AutoConfig, GenerationConfig
        from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

        if (folder / ADAPTER).is_file() and not any(folder.glob("model*.safetensors")):
            raise UserError(f"--backend vllm takes whole checkpoints, and {folder} is a LoRA adapter; merge it first")
        self._parameters = SamplingParams
        self._sampling, self._longest = settings.sampling, settings.max_new_tokens
        self._forbidden = forbidden_token_ids(AutoConfig.from_pretrained(folder))
        has_file = (folder / "generation_config.json").is_file()
        config = GenerationConfig.from_pretrained(folder) if has_file else None
        self._ends = end_tokens(config, encoder.tokenizer)
        self._model = LLM(**engine(settings, folder, encoder))

    def __call__(self, encoded: Encoded) -> list[list[Completion]]:
        """The completions of each prompt, in order."""
        names = [row["id"] for row in encoded.rows]
        count = self._sampling.count
        prompts = [prompt for prompt in encoded.prompts for _ in range(count)]
        given = decoding(self._sampling, names, self._longest, self._ends, self._forbidden)
        outputs = self._model.generate(prompts, [self._parameters(**each) for each in given], use_tqdm=False)
        first = [output.outputs[0] for output in outputs]
        done = [Completion(each.text, len(each.token_ids), each.finish_reason == "length") for each in first]
        return [done[start : start + count] for start in range(0, len(done), count)]


def engine(settings: InferenceSettings, folder: Path, encoder: Encoder) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for a checkpoint; images are limited as the processor's flags say."""
    given: dict[str, Any] = {
        "model": str(folder),
        "dtype": str(resolve_dtype(settings.dtype, settings.where)).removeprefix("torch."),
        "seed": settings.seed,
        "enable_prefix_caching": True,  # questions about one image, and samples of one question, share a beginning
        "trust_remote_code": False,
    }
    if encoder.has_vision:
        size = encoder.processor.image_processor.size
        given["limit_mm_per_prompt"] = {"image": 1, "video": 0}
        given["mm_processor_kwargs"] = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    return given
