"""Questions of every model family as a batch of prompts, and what a model answers them with."""

from pathlib import Path
from typing import Any

import torch

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.evaluation.answering.backends.decoder import Prompts
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.batches import batches_by_length
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.modeling.prompt_batch import completion_lengths
from open_r1.vocabulary.modes import Mode

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "gemma3", "internvl", "qwen2", "llama", "cohere")
TEXT = ("qwen2", "llama", "cohere")


def loaded(folder: Path, new_tokens: int = 16) -> tuple[Encoder, Generator]:
    vision, pixels = folder.name not in TEXT, 200 * 200 if folder.name.startswith("qwen") else None
    processor = load_processor(folder, max_pixels=None if folder.name in TEXT else pixels)
    encoder = Encoder(processor, Mode.NOTHINK, has_vision=vision)
    return encoder, Generator(load_model(folder, torch.float32), encoder.tokenizer, new_tokens)


def prompts_of(encoder: Encoder, rows: list[dict]) -> Prompts:
    prompts = encoder(rows).prompts
    assert prompts is not None
    return prompts


def tokens_of(encoder: Encoder, generator: Generator, rows: list[dict], batch_size: int) -> dict[str, list[list[int]]]:
    """id -> the tokens of its completions, up to their end tokens."""
    collected: dict[str, list[list[int]]] = {}
    for batch in batches_by_length([len(row["problem"]) for row in rows], batch_size):
        chosen = [rows[index] for index in batch]
        names = [row["id"] for row in chosen for _ in range(generator.sampling.count)]
        tokens = generator.tokens(prompts_of(encoder, chosen), [row["id"] for row in chosen])
        lengths = completion_lengths(tokens, generator.end_tokens).tolist()
        for name, written, length in zip(names, tokens.tolist(), lengths, strict=True):
            collected.setdefault(name, []).append(written[:length])
    return collected


def outputs(settings: InferenceSettings) -> dict[str, str]:
    """id -> what is written in a run of these settings."""
    infer(settings)
    return {result.id: result.output for result in read_results(settings.output_path).results}


def small_settings(checkpoint: Path, phantoms: Path, output: Path, **changes: Any) -> InferenceSettings:
    """Settings of a short run on a CPU over the test questions of a folder of phantoms."""
    values = {
        "model_path": str(checkpoint),
        "prompt_path": str(phantoms / "test.json"),
        "image_root": str(phantoms),
        "output_path": str(output),
        "batch_size": 8,
        "max_new_tokens": 6,
        "device": "cpu",
    }
    return InferenceSettings(**(values | changes))
