"""The same questions answered by vLLM, for large models and long completions on a GPU.

Prompts, images, limits and forbidden tokens are those of the transformers backend. vLLM decodes with other kernels, so
completions may differ between the backends, and the manifest names the backend. vLLM is an extra
(`pip install '.[vllm]'`) and is imported only here.
"""

import os
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.checkpoints.families import forbidden_token_ids
from open_r1.checkpoints.loading import resolve_dtype
from open_r1.checkpoints.names import ADAPTER
from open_r1.common.command_line import require_vllm
from open_r1.common.errors import UserError
from open_r1.evaluation.answering.backends.generator import Completion, end_tokens
from open_r1.evaluation.answering.backends.sampling import keyed_generator
from open_r1.evaluation.answering.encoder import Encoded, Encoder
from open_r1.evaluation.answering.settings import InferenceSettings, Sampling

NEVER = -100.0
"""The lowest value of vLLM's `logit_bias`: it divides the odds of a token by e^100."""


class VllmEncoder(Encoder):
    """Passes whole images on, because vLLM cuts them into patches itself."""

    def _encode(
        self, texts: list[str], images_of: list[tuple[int, ...]], images: list[Image.Image]
    ) -> list[dict[str, Any]]:
        return [
            request(text, [images[image] for image in row_images])
            for text, row_images in zip(texts, images_of, strict=True)
        ]


def request(text: str, images: Sequence[Image.Image]) -> dict[str, Any]:
    """One prompt for `LLM.generate`: the rendered text, in which vLLM repeats the placeholder of each image itself."""
    if not images:
        return {"prompt": text}
    return {"prompt": text, "multi_modal_data": {"image": images[0] if len(images) == 1 else list(images)}}


def decoding(
    sampling: Sampling, names: Sequence[str], max_new_tokens: int, ends: list[int], forbidden: list[int]
) -> list[dict[str, Any]]:
    """Arguments of `SamplingParams` for every completion, the samples of a question next to each other.

    The seed of a sample depends on (seed, question, sample). Repetition penalty, top-k and top-p, which a checkpoint's
    generation_config.json may set, are off.
    """
    common: dict[str, Any] = {
        "max_tokens": max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "stop_token_ids": ends,
        "logit_bias": dict.fromkeys(forbidden, NEVER) or None,
        "detokenize": False,
    }
    if sampling.is_greedy:
        return [dict(common) for _ in names]
    return [
        common | {"seed": int(keyed_generator(sampling.seed, name, sample).integers(2**31))}
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
        folder: the checkpoint's folder, with merged weights.
        encoder: a `VllmEncoder`.
        images: most images of one question.

    Raises:
        UserError: vLLM is not installed, or the checkpoint is an adapter.
    """

    def __init__(self, settings: InferenceSettings, folder: Path, encoder: Encoder, images: int = 1) -> None:
        require_backend()
        from transformers import AutoConfig, GenerationConfig
        from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

        if (folder / ADAPTER).is_file() and not any(folder.glob("model*.safetensors")):
            raise UserError(f"--backend vllm loads no LoRA adapters, and {folder} is one; merge it into its base")
        self._parameters = SamplingParams
        self._sampling, self._max_new_tokens = settings.sampling, settings.max_new_tokens
        self._forbidden = forbidden_token_ids(AutoConfig.from_pretrained(folder))
        has_file = (folder / "generation_config.json").is_file()
        config = GenerationConfig.from_pretrained(folder) if has_file else None
        self._tokenizer = encoder.tokenizer
        self._end_tokens = end_tokens(config, self._tokenizer)
        use_own_gpu(os.environ)
        self._model = LLM(**engine(settings, folder, encoder, images))

    def __call__(self, encoded: Encoded) -> list[list[Completion]]:
        """The completions of each prompt, in order."""
        names = [row["id"] for row in encoded.rows]
        count = self._sampling.count
        prompts = [prompt for prompt in encoded.prompts for _ in range(count)]
        arguments = decoding(self._sampling, names, self._max_new_tokens, self._end_tokens, self._forbidden)
        requests = self._model.generate(prompts, [self._parameters(**kwargs) for kwargs in arguments], use_tqdm=False)
        outputs = [request.outputs[0] for request in requests]
        # Not vLLM's text: it leaves out a last character of which some bytes are missing.
        rows = [list(output.token_ids) for output in outputs]
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        completions = [
            Completion(text, len(row), output.finish_reason == "length")
            for text, row, output in zip(texts, rows, outputs, strict=True)
        ]
        return [completions[start : start + count] for start in range(0, len(completions), count)]


def use_own_gpu(environment: MutableMapping[str, str]) -> None:
    """Under torchrun, let vLLM see only the GPU of this process: by itself it would take the first one in each."""
    if int(environment.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return
    rank, visible = int(environment["LOCAL_RANK"]), environment.get("CUDA_VISIBLE_DEVICES")
    environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank] if visible else str(rank)


def engine(settings: InferenceSettings, folder: Path, encoder: Encoder, images: int = 1) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for a checkpoint, with the processor's limits on image size.

    Args:
        settings: the flags.
        folder: the checkpoint's folder.
        encoder: with the processor.
        images: most images of one question; vLLM reserves memory for as many.
    """
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": str(resolve_dtype(settings.dtype, settings.where)).removeprefix("torch."),
        "seed": settings.seed,
        "enable_prefix_caching": True,  # questions about one image, and samples of one question, share a beginning
        "trust_remote_code": False,
    }
    if encoder.has_vision:
        size = encoder.processor.image_processor.size
        arguments["limit_mm_per_prompt"] = {"image": max(images, 1), "video": 0}
        arguments["mm_processor_kwargs"] = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    return arguments
