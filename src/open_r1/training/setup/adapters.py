"""Quantization of the base model under LoRA."""

import importlib

from transformers import BitsAndBytesConfig
from trl import ModelConfig

from open_r1.checkpoints.loading import resolve_dtype, torch_dtype
from open_r1.common.errors import UserError
from open_r1.training.setup.trainable_parts import VISION


def quantization(model_config: ModelConfig) -> BitsAndBytesConfig | None:
    """Settings of `--load_in_4bit` for the frozen base; None without it. Head and vision tower are not quantized.

    Raises:
        UserError: without LoRA or bitsandbytes, or with `--load_in_8bit`, which is not supported.
    """
    if model_config.load_in_8bit:
        raise UserError("--load_in_8bit is not supported; use --load_in_4bit")
    if not model_config.load_in_4bit:
        return None
    if not model_config.use_peft:
        raise UserError("--load_in_4bit freezes the base, so nothing would train; add --use_peft")
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            f"--load_in_4bit needs bitsandbytes, which cannot be imported here ({error}); pip install '.[quant]', "
            "or leave the flag out to train LoRA without quantization"
        ) from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=resolve_dtype(torch_dtype(model_config.dtype)),
        bnb_4bit_quant_type=model_config.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model_config.use_bnb_nested_quant,
        bnb_4bit_quant_storage=model_config.bnb_4bit_quant_storage,
        # also used for 4 bits; matches the beginning of a name (transformers 5.17)
        llm_int8_skip_modules=["lm_head", *(f"model.{name}" for name in VISION)],
    )
