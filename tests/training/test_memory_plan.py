"""The memory plan: weights counted from config.json, a pass held against fake CUDA tensors, and what the table says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from open_r1.checkpoints.families import FAMILIES
from open_r1.common.errors import UserError
from open_r1.training.memory.model_size import model_size
from open_r1_testbed.tiny_models import build_tiny_checkpoint

# As published on the hub in 2024 and 2025: all of the language model's numbers at the top, old names in the tower.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen2-VL-2B": {
        "model_type": "qwen2_vl", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
                          "hidden_size": 1536, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
    },
    "Qwen2.5-VL-3B": {
        "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
                          "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
                          "temporal_patch_size": 2},
    },
    "Qwen2-VL-7B": {
        "model_type": "qwen2_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
                          "hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
    },
}  # fmt: skip


def counted(config: Any) -> int:
    """Weights of the real class, made without numbers."""
    with torch.device("meta"):
        model = getattr(transformers, FAMILIES[config.model_type].model_class)(config)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_of_published_models_are_counted_exactly(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    size = model_size(PUBLISHED[name])
    print(f"{name}: {size.weights:,} weights")
    assert size.weights == counted(transformers.AutoConfig.from_pretrained(tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_every_family_are_counted_exactly(family: str, tmp_path: Path) -> None:
    folder = build_tiny_checkpoint(tmp_path / family, family)
    config = transformers.AutoConfig.from_pretrained(folder)
    size = model_size(json.loads((folder / "config.json").read_text()))
    assert size.weights == counted(config)
    with torch.device("meta"):
        model = getattr(transformers, FAMILIES[family].model_class)(config)
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv3d))
    if family != "gemma3":  # whose tower nothing runs
        assert size.rounded == matrices - size.language.table  # the head, tied or not


def test_a_family_that_is_not_trained_here_is_one_line() -> None:
    with pytest.raises(UserError, match="'llama' is no family"):
        model_size({"model_type": "llama"})
    with pytest.raises(UserError, match="lacks num_hidden_layers"):
        model_size({key: value for key, value in PUBLISHED["Qwen2-VL-2B"].items() if key != "num_hidden_layers"})
