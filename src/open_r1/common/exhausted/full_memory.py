"""Recognizes errors of a memory that is full, whichever library raises them, and says which flags help.

Standard library only: an error is known by the name of its class, and where it happened by the functions of its
traceback.
"""

import re
import traceback
from typing import NamedTuple

# torch on a CPU, vLLM when it lays out its cache, and what C libraries say of malloc
_MESSAGES = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|No available memory for the cache|"
    r"less than desired GPU memory utilization|KV cache is needed, which is larger than the available",
    re.IGNORECASE,
)
_CLASSES = {"OutOfMemoryError", "MemoryError"}


class _Place(NamedTuple):
    """What a command was doing when memory ended."""

    doing: str
    remedy: str


_TRAINING = "--gradient_checkpointing true, --tokens_per_micro_batch, a smaller --per_device_train_batch_size or"
_PLAN = "the same command with --plan and a card (--plan 80GB:2) says what each flag would save"
_SAMPLING = "a smaller --per_device_train_batch_size, --max_completion_length or --max_pixels"
_CARD_IS_SHARED = "look with nvidia-smi whether another process holds memory of the card"

# Function -> what it is about; of a traceback's functions the innermost counts.
_PLACES = {
    "load_model": _Place("loading a model", f"--dtype bfloat16, with training --load_in_4bit; {_CARD_IS_SHARED}"),
    "starting_model": _Place("loading the model", f"--dtype bfloat16 or --use_peft --load_in_4bit; {_PLAN}"),
    "shrink_reference": _Place("loading the reference", f"--beta 0 or --use_peft train without one; {_PLAN}"),
    "try_pass": _Place("trying the longest batch", f"{_TRAINING} --use_peft; {_PLAN}"),
    "_generate_single_turn": _Place("sampling completions", f"{_SAMPLING}; {_PLAN}"),
    "sample_groups": _Place("sampling completions", f"{_SAMPLING}; {_PLAN}"),
    "prediction_step": _Place("answering the questions asked while training", "a smaller --per_device_eval_batch_size"),
    "training_step": _Place("training", f"{_TRAINING} --use_peft; {_PLAN}"),
    "train": _Place("training", f"--shard_optimizer true, --deepspeed, {_TRAINING} --use_peft; {_PLAN}"),
    "_save_checkpoint": _Place("saving a checkpoint", "the last complete one is kept, and the same command continues"),
    "_load_backend": _Place("loading the checkpoint", f"--dtype bfloat16 or a smaller --batch_size; {_CARD_IS_SHARED}"),
    "answer_views": _Place("answering questions", "a smaller --batch_size, --max_pixels or --max_new_tokens"),
}
_VLLM = _Place(
    "in vLLM",
    "in training lower --vllm_gpu_memory_utilization (or raise it where vLLM lacks room for its cache), or sample "
    f"without --use_vllm; in evaluation leave --backend vllm out; {_CARD_IS_SHARED}",
)


def out_of_memory(error: BaseException | None) -> str | None:
    """One line for an error that means, or was caused by, a full memory of a GPU or of the host; else None."""
    innermost, visited = None, set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        if _is_out_of_memory(error):
            innermost = error
        error = error.__cause__ or error.__context__
    if innermost is None:
        return None
    place = _place(innermost) or _Place("working", f"smaller batches help; {_CARD_IS_SHARED}")
    doing = place.doing if place.doing.startswith("in ") else f"while {place.doing}"
    return f"out of memory {doing} ({_first_sentences(innermost)}). What helps: {place.remedy}"


def _is_out_of_memory(error: BaseException) -> bool:
    if _CLASSES.intersection(kind.__name__ for kind in type(error).__mro__):
        return True
    # of other errors the messages of torch and vLLM alone: a message of ours may speak of memory too
    return (
        isinstance(error, RuntimeError | ValueError)
        and type(error).__module__ in _MODULES
        and bool(_MESSAGES.search(str(error)))
    )


_MODULES = {"builtins", "torch", "torch.cuda"}


def _place(error: BaseException) -> _Place | None:
    frames = list(traceback.walk_tb(error.__traceback__))
    if any("vllm" in re.split(r"[\\/]", frame.f_code.co_filename) for frame, _ in frames):
        return _VLLM
    return next((_PLACES[name] for frame, _ in reversed(frames) if (name := frame.f_code.co_name) in _PLACES), None)


def _first_sentences(error: BaseException) -> str:
    """torch's message without its advice on environment variables, or the kind of error where there is none."""
    text = " ".join(str(error).split())
    text = re.split(r" If reserved but unallocated| See documentation| Process \d+ has| Including non-PyTorch", text)[0]
    return text[:200].rstrip(".") or type(error).__name__
