"""LoRA and quantization as the flags ask for them."""

import importlib

from transformers import BitsAndBytesConfig
from trl import ModelConfig

from open_r1.checkpoints.loading import resolve_dtype, torch_dtype
from open_r1.common.errors import UserError
from open_r1.training.setup.trainable_parts import VISION


def quantization(model_config: ModelConfig) -> BitsAndBytesConfig | None:
    """How `--load_in_4bit` packs the frozen base; None without it. The head and all that sees stay as they are.

    Raises:
        UserError: without LoRA or bitsandbytes, or for `--load_in_8bit`, which we do not offer.
    """
    if model_config.load_in_8bit:
        raise UserError("--load_in_8bit is not supported, so the base would be loaded whole; use --load_in_4bit")
    if not model_config.load_in_4bit:
        return None
    if not model_config.use_peft:
        raise UserError("--load_in_4bit freezes the base, so nothing would train; add --use_peft")
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            f"--load_in_4bit needs bitsandbytes, which cannot be imported here ({error}); pip install '.[quant]', "
            "or leave the flag out to train LoRA on the whole base"
        ) from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=resolve_dtype(torch_dtype(model_config.dtype)),
        bnb_4bit_quant_type=model_config.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model_config.use_bnb_nested_quant,
        bnb_4bit_quant_storage=model_config.bnb_4bit_quant_storage,
        # of 4 bits too, in spite of its name; matched from a name's beginning (transformers 5.17)
        llm_int8_skip_modules=["lm_head", *(f"model.{part}" for part in VISION)],
    )
