"""Configurations of published models, as transformers reads them."""

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from open_r1_testbed.published_sizes import PUBLISHED as PUBLISHED


def published_config(name: str, layers: int | None = None) -> Any:
    """The config as transformers reads it, with so many layers in language model and vision tower; None for all.

    With few layers, the tower's second one attends over the whole image where some of them do.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(PUBLISHED[name]))
        config: Any = AutoConfig.from_pretrained(folder)
    if layers is not None:
        text, vision = config.text_config, config.vision_config
        text.num_hidden_layers, text.layer_types, vision.depth = layers, text.layer_types[:layers], layers
        if hasattr(vision, "fullatt_block_indexes"):
            vision.fullatt_block_indexes = [1]
    return config
