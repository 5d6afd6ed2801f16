"""What libraries print while a command runs; importing open_r1 changes nothing of it.

Commands leave out lines that say nothing about a run, and close progress bars before they print an error.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_MESSAGES = (
    "Setting accelerator to CPU",  # DeepSpeed 0.19, wherever there is no GPU
    "Failed to load CPU gemm_4bit_forward",  # bitsandbytes 0.50, which computes without that kernel
    "The tokenizer has new PAD/BOS/EOS tokens",  # transformers 5, of any Qwen; end tokens are ours to choose
    "All reward functions returned None for",  # TRL 1.16, followed by the question, its images and the completion
)
_LIBRARIES = ("DeepSpeed", "bitsandbytes.backends.cpu.ops", "transformers.trainer_utils", "trl.trainer.grpo_trainer")
_WARNINGS = (r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated",)  # transformers, called by TRL 1.16


def leave_out_library_messages() -> None:
    """Leave them out in this process; the commands call it before they load a library."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message, FutureWarning)
    for library in _LIBRARIES:
        logging.getLogger(library).addFilter(_matters)


@contextmanager
def closing_progress_bars() -> Iterator[None]:
    """At the end of the block closes progress bars that an error left open: the next line is a line of its own."""
    try:
        yield
    finally:
        tqdm = sys.modules.get("tqdm.std")
        for bar in [] if tqdm is None else list(tqdm.tqdm._instances):  # a private name of tqdm 4
            bar.close()


def _matters(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_MESSAGES)
