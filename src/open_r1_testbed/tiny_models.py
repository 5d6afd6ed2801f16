"""Tiny checkpoints of real classes: a whole model folder in well under a second, for tests and the demo.

A folder made here loads offline with transformers' own `Auto*` classes, exactly as a published checkpoint
does: config.json, model.safetensors, generation_config.json, a tokenizer and, for the vision families, a
processor. The weights are random. `TINY_BASE` names the one trained folder that the package ships; the script
`scripts/build_tiny_base.py` makes it.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from open_r1.checkpoints.families import family_of
from open_r1.checkpoints.processors import no_progress_bars
from open_r1.common.atomic_files import usual_modes
from open_r1.common.errors import UserError
from open_r1_testbed.tiny_gemma import write_tiny_gemma
from open_r1_testbed.tiny_internvl import write_tiny_internvl

TINY_BASE = Path(__file__).parent / "tiny_base"

# Qwen's special tokens in the order of the published vocabulary, where they are ids 151643, 151644, ...
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The chat template that Qwen2-VL and Qwen2.5-VL are published with, byte for byte.
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

DEFAULT_TEXTS = (
    "What imaging modality was used to capture this image? A)CT, B)MRI, C)Ultrasound, D)X-Ray",
    "Which anatomical structure is shown in this image? A)liver, B)kidney, C)lung, D)brain",
    "What is the most likely diagnosis? A)nodule, B)cyst, C)abscess, D)fracture",
    "How severe is the lesion? A)minimal, B)mild, C)moderate, D)severe",
    "Your task: provide the correct single-letter choice (A, B, C, D,...) inside <answer>...</answer> tags.",
    "Think through the question step by step inside <think>...</think> tags.",
    "<think> The outline is round. </think> <answer> A </answer>",
    "system\nYou are a helpful assistant.\nuser\n\nassistant\n",
)

PROCESSORS = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}
FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen2", "gemma3", "internvl")


@dataclass(frozen=True)
class Shape:
    """Sizes of a tiny model; the defaults are the smallest that still have every part of the real ones."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    mlp: int = 128
    vision_hidden: int = 32
    vision_depth: int = 2
    vision_heads: int = 2
    window: int = 112  # pixels; Qwen2.5-VL only
    vocabulary: int = 850  # entries before the special tokens; own tokenizer only
    longest_edge: int = 113 * 113  # pixels in an image; 112 * 112 would be floored to 84 x 84
    rope_theta: float = 10000.0  # the published models': 1,000,000
    spread: float = 0.02  # standard deviation of the first language weights; the published models' own


def build_tiny_checkpoint(
    folder: Path | str,
    family: str = "qwen2_5_vl",
    processor: Path | str | None = None,
    seed: int = 0,
    texts: Iterable[str] | None = None,
    shape: Shape | None = None,
) -> Path:
    """Write a randomly initialised checkpoint of `family` to `folder` and return that folder.

    `processor` is a folder whose tokenizer and image processor are copied, and whose vocabulary sets the size
    of the embedding; without it a byte-level BPE is trained on `texts`, and a 384 x 384 image becomes
    112 x 112, which is 16 image tokens. The same arguments give the same bytes. Raises `UserError` for an
    unknown family. Any text model of transformers gets Qwen's tokenizer.
    """
    properties = family_of(family)
    if family not in FAMILIES and (properties is None or properties.has_vision):
        raise UserError(
            f"unknown model family {family!r}: tiny checkpoints exist for {', '.join(FAMILIES)} and text models"
        )
    folder, shape = Path(folder), shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    if family == "gemma3":
        if processor is not None:
            raise UserError(f"{processor} has Qwen's tokens, which a gemma3 has not; leave processor out")
        return write_tiny_gemma(folder, DEFAULT_TEXTS if texts is None else texts, shape, seed)
    if family == "internvl":
        learnt = train_tokenizer(DEFAULT_TEXTS if texts is None else texts, shape.vocabulary)
        return write_tiny_internvl(folder, learnt, shape, seed)
    if processor is None:
        tokenizer = train_tokenizer(DEFAULT_TEXTS if texts is None else texts, shape.vocabulary)
        _save_processor(folder, family, tokenizer, shape)
        embeddings = len(tokenizer)
    else:
        tokenizer = _copy_processor(Path(processor), folder)
        embeddings = (
            -(-len(tokenizer) // 128) * 128
        )  # 151,657 -> 151,680: a multiple of 128, like the published 151,936
    ids = {token: _token_id(tokenizer, token) for token in SPECIAL_TOKENS}
    model = build_model(family, shape, embeddings, ids, seed)
    with no_progress_bars():
        model.save_pretrained(folder)
    usual_modes(folder)
    return folder


def train_tokenizer(texts: Iterable[str], vocabulary: int = 850) -> Qwen2Tokenizer:
    """A byte-level BPE in Qwen's form: at most `vocabulary` learnt entries, then Qwen's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.train_from_iterator(texts, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learnt["merges"]]  # annotated as str, wants pairs (5.17)
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
        padding_side="left",
    )


def build_model(family: str, shape: Shape, embeddings: int, ids: Mapping[str, int], seed: int) -> PreTrainedModel:
    """A randomly initialised float32 model; the caller's random state is left as it was."""
    config = _config(family, shape, embeddings, ids)
    classes = {
        "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
        "qwen2_vl": Qwen2VLForConditionalGeneration,
        "qwen3_vl": Qwen3VLForConditionalGeneration,
        "qwen2": Qwen2ForCausalLM,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = classes[family](config) if family in classes else AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
        do_sample=False,
    )
    return model


def _config(family: str, shape: Shape, embeddings: int, ids: Mapping[str, int]) -> Any:
    text: dict[str, Any] = {
        "vocab_size": embeddings,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": max(1, shape.heads // 2),
        "max_position_embeddings": 4096,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": True,
        "initializer_range": shape.spread,
    }
    if family not in FAMILIES:
        return AutoConfig.for_model(family, **text)
    if family == "qwen2":
        return Qwen2Config(**text, rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta})
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": shape.rope_theta,
        "mrope_section": _mrope_section(shape.hidden // shape.heads),
    }
    outer = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,  # transformers 5.17 reads it here, not in text_config
    }
    if family == "qwen3_vl":
        text["head_dim"] = shape.hidden // shape.heads
        text["rope_parameters"]["mrope_interleaved"] = True
        vision = {
            "depth": shape.vision_depth,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_hidden * 3,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.hidden,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": list(range(shape.vision_depth - 1)),
        }
        return Qwen3VLConfig(text_config=text, vision_config=vision, **outer)
    if family == "qwen2_vl":
        vision = {
            "depth": shape.vision_depth,
            "embed_dim": shape.vision_hidden,
            "hidden_size": shape.hidden,
            "num_heads": shape.vision_heads,
            "mlp_ratio": 3,
        }
        return Qwen2VLConfig(text_config=text, vision_config=vision, **outer)
    vision = {
        "depth": shape.vision_depth,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_hidden * 3,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "window_size": shape.window,
        "fullatt_block_indexes": [shape.vision_depth - 1],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **outer)


def _mrope_section(head: int) -> list[int]:
    """Time, height and width shares of half the head size, in the published proportion 16 : 24 : 24."""
    half = head // 2
    side = half * 3 // 8
    return [half - 2 * side, side, side]


def _save_processor(folder: Path, family: str, tokenizer: Qwen2Tokenizer, shape: Shape) -> None:
    tokenizer.chat_template = CHAT_TEMPLATE
    if family not in PROCESSORS:
        tokenizer.save_pretrained(folder)
        return
    size = {"shortest_edge": 56 * 56, "longest_edge": shape.longest_edge}
    is_third = family == "qwen3_vl"
    PROCESSORS[family](
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=16 if is_third else 14),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor() if is_third else Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def _copy_processor(source: Path, folder: Path) -> Any:
    skip: Sequence[str] = ("config.json", "generation_config.json")
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in skip and not file.name.endswith((".safetensors", ".bin")):
            # without the mode: a read-only source must not make a folder that cannot be written twice
            shutil.copyfile(file, folder / file.name)
    return AutoTokenizer.from_pretrained(folder)


def _token_id(tokenizer: Any, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or (token_id == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise UserError(f"the tokenizer has no {token!r}: a Qwen-VL model needs it; take a Qwen processor")
    return token_id
