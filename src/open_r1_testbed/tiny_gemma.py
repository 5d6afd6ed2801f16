"""A tiny Gemma 3 of the real classes: text model with a window, vision tower, and a tokenizer in Gemma's form."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GemmaTokenizer,
    GenerationConfig,
)

from open_r1.checkpoints.processors import no_progress_bars
from open_r1.common.atomic_files import usual_modes

TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
IMAGE = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", TURN, END_OF_TURN, *IMAGE)
SIDE, IMAGE_TOKENS = 56, 4
"""Pixels of an image's side and tokens of an image; 896 and 256 in the published models."""
WINDOW = 32
"""Tokens that every other layer looks back over; 1,024 in the published 12B."""

# The form of the published chat: the beginning is in the text, the model's turn is called "model".
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ content['text'] | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def write_tiny_gemma(folder: Path, texts: Iterable[str], shape: Any, seed: int) -> Path:
    """Write a randomly initialised Gemma 3 with its tokenizer.

    Args:
        folder: exists.
        texts: what the tokenizer learns its entries from.
        shape: a `tiny_models.Shape`.
        seed: of the weights.
    """
    tokenizer = gemma_tokenizer(texts, shape.vocabulary)
    images = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Gemma3Processor(images, tokenizer, CHAT_TEMPLATE, image_seq_length=IMAGE_TOKENS)
    processor.save_pretrained(folder)
    model = gemma_model(tokenizer, shape, seed)
    with no_progress_bars():
        model.save_pretrained(folder)
    usual_modes(folder)
    return folder


def gemma_tokenizer(texts: Iterable[str], vocabulary: int) -> GemmaTokenizer:
    """A BPE with byte fallback in Gemma's form, with at most about `vocabulary` entries."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    bpe.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=1,
            show_progress=False,
            special_tokens=[*SPECIAL_TOKENS, *fallback],
        ),
    )
    learnt = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learnt["merges"]]
    tokenizer = GemmaTokenizer(
        vocab=learnt["vocab"],
        merges=merges,
        additional_special_tokens=[TURN, END_OF_TURN, *IMAGE],
        model_max_length=4096,
        padding_side="left",
    )
    tokenizer._set_model_specific_special_tokens(
        dict(zip(("boi_token", "eoi_token", "image_token"), IMAGE, strict=True))
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    # The published tokenizer begins every text with <bos>, which its chat template has written already.
    begin = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begin
    return tokenizer


def gemma_model(tokenizer: Any, shape: Any, seed: int) -> Gemma3ForConditionalGeneration:
    """A random float32 model whose every other layer has a window; the caller's random state is left as it was."""
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": max(1, shape.heads // 2),
        "head_dim": shape.hidden // shape.heads,
        "query_pre_attn_scalar": shape.hidden // shape.heads,
        "max_position_embeddings": 4096,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
        "bos_token_id": ids["<bos>"],
        "eos_token_id": ids["<eos>"],
        "pad_token_id": ids["<pad>"],
    }
    vision = {
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_hidden * 2,
        "num_hidden_layers": shape.vision_depth,
        "num_attention_heads": shape.vision_heads,
        "image_size": SIDE,
        "patch_size": 14,
        "model_type": "siglip_vision_model",
    }
    start, end, soft = (ids[token] for token in IMAGE)
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=start,
        eoi_token_index=end,
        image_token_index=soft,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration(config)
        with torch.no_grad():  # zero at first, with which no image would change anything
            model.model.multi_modal_projector.mm_input_projection_weight.normal_(0.0, 0.2)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<bos>"],
        eos_token_id=[ids["<eos>"], ids[END_OF_TURN]],
        pad_token_id=ids["<pad>"],
        do_sample=False,
    )
    return model
