"""Lines of libraries that say nothing about a run: commands leave them out; importing open_r1 changes nothing."""

import logging
import warnings

_MESSAGES = (
    "Setting accelerator to CPU",  # DeepSpeed 0.19, wherever there is no GPU
    "Failed to load CPU gemm_4bit_forward",  # bitsandbytes 0.50, which computes without that kernel
)
_WARNINGS = (r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated",)  # transformers, called by TRL 1.16


def leave_out_library_messages() -> None:
    """Leave them out in this process; the commands call it before they load a library."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message, FutureWarning)
    for library in ("DeepSpeed", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(library).addFilter(_matters)


def _matters(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_MESSAGES)
