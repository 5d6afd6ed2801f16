"""A tiny InternVL of the real classes: images are squares of one size, and no grids come with them."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
)
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from open_r1.checkpoints.processors import no_progress_bars
from open_r1.common.atomic_files import usual_modes

IMAGE = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
SIDE = 56
"""Pixels of an image's side; 448 in the published models."""
TOKENS = (SIDE // 14 // 2) ** 2
"""Of an image: patches of 14 x 14 pixels, of which 2 x 2 become one token."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_internvl(folder: Path, tokenizer: Any, shape: Any, seed: int) -> Path:
    """Write a randomly initialised InternVL with its processor.

    Args:
        folder: exists.
        tokenizer: a Qwen2Tokenizer, which learns InternVL's tokens too.
        shape: a `tiny_models.Shape`.
        seed: of the weights; the caller's random state is left as it was.
    """
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, *IMAGE.values()]})
    tokenizer._set_model_specific_special_tokens(IMAGE | {"video_token": "<|video_pad|>"})
    tokenizer.chat_template = CHAT_TEMPLATE
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}, crop_to_patches=False),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=TOKENS,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": max(1, shape.heads // 2),
        "max_position_embeddings": 4096,
        "bos_token_id": pad,
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    vision = {
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_hidden * 2,
        "num_hidden_layers": shape.vision_depth,
        "num_attention_heads": shape.vision_heads,
        "image_size": [SIDE, SIDE],
        "patch_size": [14, 14],
    }
    context = tokenizer.convert_tokens_to_ids(IMAGE["context_image_token"])
    config = InternVLConfig(text_config=text, vision_config=vision, image_token_id=context, image_seq_length=TOKENS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InternVLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(bos_token_id=pad, eos_token_id=[end, pad], pad_token_id=pad)
    with no_progress_bars():
        model.save_pretrained(folder)
    usual_modes(folder)
    return folder
