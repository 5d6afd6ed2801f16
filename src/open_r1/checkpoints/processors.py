"""Loads the processor of a checkpoint, which turns prompts into tokens and images into patches."""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.checkpoints.checks.chat_templates import require_bounded
from open_r1.checkpoints.checks.folder_checks import require_pixels, require_sound
from open_r1.checkpoints.families import Family
from open_r1.checkpoints.folder import adapter_base, adapter_chain, is_adapter, read_config, read_family
from open_r1.checkpoints.hub import one_line
from open_r1.checkpoints.names import model_source, processor_folder
from open_r1.checkpoints.weight_files import read_json
from open_r1.common.atomic_files import sha256_file
from open_r1.common.errors import UserError
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)

# Class names in checkpoints from shortly before transformers 4.49, which was released with other names.
_RENAMED = {
    "Qwen2_5_VLImageProcessor": "Qwen2VLImageProcessor",
    "Qwen2_5_VLImageProcessorFast": "Qwen2VLImageProcessorFast",
}


def load_processor(
    name: str | os.PathLike,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    processor: str | None = None,
) -> Any:
    """The processor of a checkpoint (of a text model: its tokenizer), padding on the left.

    An image is resized so that both sides are multiples of 28 pixels and its area lies between the limits, rounding
    down: 112 * 112 shows a square image at 84 x 84, 113 * 113 at 112 x 112.

    Args:
        name: see `model_source`.
        min_pixels: smallest area in pixels; None keeps the checkpoint's.
        max_pixels: largest area in pixels; None keeps the checkpoint's.
        processor: another checkpoint to take the processor from, for a checkpoint without one.

    Raises:
        UserError: there is no processor, it does not load, or the limits are invalid.
    """
    folder = model_source(name)
    family = read_family(folder)
    for adapter in adapter_chain(folder):
        require_sound(adapter)
    source = processor_source(folder, processor)
    require_sound(source)
    loaded = _read_processor(source, family)
    tokenizer = loaded.tokenizer if family.has_vision else loaded
    tokenizer.padding_side = "left"  # generation continues at the right edge of every row
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not getattr(loaded, "chat_template", None):
        loaded.chat_template = tokenizer.chat_template
    if not loaded.chat_template:
        raise UserError(f"{source} has no chat template; pass {family.processor_hint}")
    if family.has_vision:
        if counts_patches(loaded):
            require_pixels(source, loaded.image_processor.size)
            _set_pixels(loaded.image_processor, min_pixels, max_pixels)
        elif min_pixels is not None or max_pixels is not None:
            raise UserError(
                f"--min_pixels and --max_pixels do not apply to {source}: its images always have "
                f"{dict(loaded.image_processor.size)} pixels; leave the flags out"
            )
    _require_usable(loaded, source, family)
    return loaded


def _require_usable(loaded: Any, source: Path, family: Family) -> None:
    """Try a processor on a short question, with and without an image."""
    tokenizer = loaded.tokenizer if family.has_vision else loaded
    problem = "What is shown? A)CT, B)MRI"
    conversations = [build_messages(problem, Mode.NOTHINK, images) for images in {0, int(family.has_vision)}]
    names = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    templates = loaded.chat_template if isinstance(loaded.chat_template, dict) else {"default": loaded.chat_template}
    for template in templates.values():
        require_bounded(str(template), conversations, names | {"tools": None, "documents": None}, str(source))
    try:
        for messages in conversations:
            text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            with_images = isinstance(messages[0]["content"], list)
            images = {"images": [Image.new("RGB", (56, 84))]} if with_images else {}
            values = loaded(text=[text], return_tensors="np", **images)
            if with_images and not bool((abs(values["pixel_values"]) < 1e6).all()):
                raise ValueError("the pixel values of an image are not finite")
    except Exception as error:  # libraries raise anything for untrusted files
        raise UserError(
            f"the processor in {source} cannot encode a question: {one_line(error)}; pass {family.processor_hint}"
        ) from error


def _read_processor(source: Path, family: Family) -> Any:
    from transformers import AutoProcessor, AutoTokenizer

    kind = AutoProcessor if family.has_vision else AutoTokenizer
    with quiet_transformers():
        try:
            with _with_names_of_today(source) as folder:
                loaded = kind.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # libraries raise anything for untrusted files
            raise UserError(
                f"the processor in {source} does not load: {one_line(error)}; pass {family.processor_hint}"
            ) from error
    if family.has_vision and not hasattr(loaded, "image_processor"):
        raise UserError(f"{source} holds a tokenizer but no image processor; pass {family.processor_hint}")
    return loaded


@contextmanager
def _with_names_of_today(source: Path) -> Iterator[Path]:
    """The folder, or a copy of its processor files in which a renamed class has its present name."""
    path = source / "preprocessor_config.json"
    settings = read_json(path) if path.is_file() else {}
    today = _RENAMED.get(str(settings.get("image_processor_type")))
    if today is None:
        yield source
        return
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file in (*PROCESSOR_FILES, "config.json"):
            if (source / file).is_file():
                shutil.copyfile(source / file, copy / file)
        (copy / path.name).write_text(json.dumps(settings | {"image_processor_type": today}))
        yield copy


def processor_source(folder: Path, processor: str | None = None) -> Path:
    """The folder to read a checkpoint's processor from: `processor`, the checkpoint, the base of an adapter, or the
    model that config.json says it was trained from.

    Raises:
        UserError: none of these holds a processor.
    """
    if processor is not None:
        given_folder = processor_folder(processor)
        if not _has_processor(given_folder):
            raise UserError(f"--processor {processor} holds no tokenizer or no image processor files")
        return given_folder
    vision = read_family(folder).has_vision
    if _has_processor(folder, vision):
        return folder
    if is_adapter(folder):
        return processor_source(adapter_base(folder))
    if re.fullmatch(r"checkpoint-\d+", folder.name) and _has_processor(folder.parent, vision):
        return folder.parent
    parent = read_config(folder).get("_name_or_path")
    if isinstance(parent, str) and parent and Path(parent) != folder:
        try:
            parent_folder = processor_folder(parent)
        except UserError:
            parent_folder = None
        if parent_folder is not None and _has_processor(parent_folder, vision):
            print(f"{folder} has no processor; taking the one of {parent}, which it was trained from", file=sys.stderr)
            return parent_folder
    raise UserError(
        f"{folder} has no processor (tokenizer.json, preprocessor_config.json); "
        f"pass {read_family(folder).processor_hint}, or copy these files from the model that it was trained from"
    )


def _has_processor(folder: Path, vision: bool = True) -> bool:
    words = ("tokenizer.json", "vocab.json")
    images = ("processor_config.json", "preprocessor_config.json")
    return any((folder / name).is_file() for name in words) and (
        not vision or any((folder / name).is_file() for name in images)
    )


def processor_fingerprint(source: Path) -> str:
    """SHA-256 over the processor files; 64 hex digits."""
    total = hashlib.sha256()
    for name in PROCESSOR_FILES:
        if (source / name).is_file():
            total.update(f"{name} {sha256_file(source / name)}\n".encode())
    return total.hexdigest()


def counts_patches(processor: Any) -> bool:
    """Whether images of any size become patches, counted by a grid for each, as for Qwen-VL; else they become squares
    of one size."""
    return hasattr(getattr(processor, "image_processor", None), "merge_size")


def _set_pixels(image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    side = image_processor.patch_size * image_processor.merge_size
    size = image_processor.size
    smallest = size["shortest_edge"] if min_pixels is None else min_pixels
    largest = size["longest_edge"] if max_pixels is None else max_pixels
    if min_pixels is None and max_pixels is not None:
        smallest = min(smallest, largest)
    if max_pixels is None and min_pixels is not None:
        largest = max(smallest, largest)
    if largest < side * side:
        raise UserError(f"--max_pixels {largest} is less than one token's {side} x {side} = {side * side} pixels")
    if smallest > largest or smallest < 1:
        raise UserError(f"--min_pixels {smallest} must lie between 1 and --max_pixels {largest}")
    image_processor.size = {"shortest_edge": smallest, "longest_edge": largest}  # areas, in spite of their names


def image_refusal(size: tuple[int, int], processor: Any) -> str | None:
    """Why a checkpoint's image processor refuses an image of (width, height) pixels; None if it accepts it.

    Qwen's raises an error if the sides differ by more than a factor of 200.
    """
    if not counts_patches(processor):
        return None
    rules = processor.image_processor
    width, height = size
    try:
        rules.get_number_of_image_patches(height, width, images_kwargs={})
    except ValueError as error:
        return f"the image is {width} x {height} pixels, which the model's image processor refuses: {error}"
    return None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides progress bars and load reports of transformers; the problems they report are raised as errors here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_progress_bars():
            yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hides progress bars of transformers (reading and writing weights) and of downloads from the hub."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()
