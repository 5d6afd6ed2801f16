"""Resizing by qwen-vl-utils, which Med-R1's evaluation scripts put before the image processor.

The sizes are those of the image processor, the pixels nearly: qwen-vl-utils resizes with Pillow, the processor with
torch. Training passes images to the processor alone, as the published training did, and evaluation does the same unless
`--resize qwen_vl_utils` is given. qwen-vl-utils opens any address or path that it gets; it gets opened images only.
"""

from typing import Any

from PIL import Image

from open_r1.common.errors import UserError


def require_qwen_sizes(image_processor: Any) -> None:
    """Refuse an image processor that does not size images by the rule of qwen-vl-utils.

    Raises:
        UserError: it has other settings.
    """
    names = ("patch_size", "merge_size")
    if any(not hasattr(image_processor, name) for name in names) or "shortest_edge" not in image_processor.size:
        raise UserError(
            f"--resize qwen_vl_utils is for Qwen's image processors, and this checkpoint has a "
            f"{type(image_processor).__name__}; leave the flag out"
        )


def qwen_size(size: tuple[int, int], image_processor: Any) -> tuple[int, int] | None:
    """The (width, height) to which qwen-vl-utils resizes an image; None if nothing would be left of it.

    Args:
        size: (width, height) of the image in pixels.
        image_processor: of the checkpoint; its limits hold.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    from qwen_vl_utils import smart_resize

    width, height = size
    side = image_processor.patch_size * image_processor.merge_size
    limits = image_processor.size
    resized = smart_resize(height, width, side, limits["shortest_edge"], limits["longest_edge"])
    return None if 0 in resized else (resized[1], resized[0])


def resized_by_qwen(image: Image.Image, image_processor: Any) -> Image.Image:
    """An image as `process_vision_info` of qwen-vl-utils prepares it for the processor, which then resizes it no more.

    Args:
        image: opened, RGB, one that `qwen_size` takes.
        image_processor: of the checkpoint; its limits hold.
    """
    from qwen_vl_utils import process_vision_info

    assert isinstance(image, Image.Image), "anything else would be opened by qwen-vl-utils"
    limits = image_processor.size
    element = {"type": "image", "image": image}
    element |= {"min_pixels": limits["shortest_edge"], "max_pixels": limits["longest_edge"]}
    images, _ = process_vision_info(  # type: ignore[misc]
        [{"role": "user", "content": [element]}], image_patch_size=image_processor.patch_size
    )
    assert images is not None
    return images[0]
