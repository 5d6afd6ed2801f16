"""Checkpoint folders as older libraries wrote them."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file


def to_old_processor(folder: Path) -> None:
    """The processor in the files that transformers 4.49 wrote."""
    settings = json.loads((folder / "processor_config.json").read_text())
    images = settings["image_processor"]
    size = images.pop("size")
    images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    images |= {"processor_class": settings["processor_class"], "image_processor_type": "Qwen2VLImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "processor_config.json").unlink()
    (folder / "chat_template.jinja").unlink()


def shard(folder: Path) -> list[str]:
    """Split the weights into two files with an index, like the released checkpoints."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    placed = {name: files[i % 2] for i, name in enumerate(names)}
    for file in files:
        save_file({n: weights[n] for n in names if placed[n] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return files
