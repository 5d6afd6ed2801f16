"""LoRA adapters with the parameter names of transformers before 4.52.

transformers converts the names in full checkpoints of that time; PEFT 0.21 does not do so for adapters.
"""

import re
from pathlib import Path
from typing import Any

_PREFIX = "base_model.model."


def names_of_today(base: Any, folder: Path) -> tuple[Any, dict[str, str]]:
    """The PEFT config and `key_mapping` to load an adapter with old parameter names.

    Args:
        base: the model that the adapter is loaded on.
        folder: with adapter_config.json and adapter_model.safetensors.

    Returns:
        (None, {}) for an adapter whose names are those of the model.
    """
    import peft
    from safetensors import safe_open
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange, WeightRenaming

    modules = {name for name, _ in base.named_modules()}
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        stored = {str(key): str(key).removeprefix(_PREFIX) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    if all(_module(plain) in modules for plain in stored.values()):
        return None, {}
    rules = [conversion for conversion in get_model_conversion_mapping(base) if isinstance(conversion, WeightRenaming)]
    rules = [conversion for conversion in rules if not isinstance(conversion, PrefixChange)]
    renamed = {plain: _renamed(plain, rules) for plain in stored.values()}
    renamed = {old: new for old, new in renamed.items() if _module(old) not in modules and _module(new) in modules}
    config: Any = peft.PeftConfig.from_pretrained(str(folder))
    # exactly the layers that have weights: a pattern of old names would match none
    config.target_modules = sorted({_module(renamed.get(p, p)) for p in stored.values() if ".lora_" in p})
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    for pattern in (config.rank_pattern, config.alpha_pattern):
        renamed_pattern = {_renamed(name, rules): value for name, value in pattern.items()}
        pattern.clear()
        pattern.update(renamed_pattern)
    return config, {f"^{re.escape(old)}$": new for old, new in renamed.items()}


def _module(name: str) -> str:
    """`model.layers.0.mlp.up_proj` of `model.layers.0.mlp.up_proj.lora_A.weight`; of other weights their part."""
    return name.partition(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0]


def _renamed(name: str, rules: list[Any]) -> str:
    """A weight's name after every rule in turn."""
    for rule in rules:
        name, _ = rule.rename_source_key(name)
    return name
