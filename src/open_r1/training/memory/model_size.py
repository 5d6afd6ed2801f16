"""How many weights a model has, counted from its config.json alone, by what is done with them.

Qwen's families by formula, without loading a library; any other on its class, made without memory. Matrices are
multiplied, and under autocast rounded first; vectors (norms and biases) are not; the embeddings' table is looked up,
and is the head too where the two are tied.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from open_r1.checkpoints.families import FAMILIES, family_of
from open_r1.common.errors import UserError


@dataclass(frozen=True)
class LanguageSize:
    """A language model's layers and tables."""

    layers: int
    width: int
    """Numbers per token between layers."""
    heads: int
    """Query heads of a layer."""
    queries: int
    """Numbers per token of all query heads of a layer."""
    keys: int
    """Numbers per token of all key heads of a layer; as many of values."""
    mlp: int
    """Numbers per token within a layer's MLP."""
    vocabulary: int
    tied: bool
    """Whether the head is the embeddings' table."""
    vectors_per_layer: int
    """Weights of a layer that are norms and biases."""
    other_matrices: int = 0
    """Weights of all layers that are multiplied beside the linear layers named here, such as further experts."""

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name -> inputs and outputs of each linear layer of a decoder layer."""
        width, mlp = self.width, self.mlp
        attention = {"q_proj": (width, self.queries), "k_proj": (width, self.keys), "v_proj": (width, self.keys)}
        attention["o_proj"] = (self.queries, width)
        return attention | {"gate_proj": (width, mlp), "up_proj": (width, mlp), "down_proj": (mlp, width)}

    @property
    def matrices(self) -> int:
        """Weights of all layers that are multiplied, without the head."""
        return self.layers * sum(ins * outs for ins, outs in self.linears.values()) + self.other_matrices

    @property
    def table(self) -> int:
        """Weights of the embeddings."""
        return self.vocabulary * self.width

    @property
    def vectors(self) -> int:
        """Norms and biases, the last norm's too."""
        return self.layers * self.vectors_per_layer + self.width


@dataclass(frozen=True)
class Tower:
    """The weights of a vision tower with what leads to the language model."""

    layers: int
    block_matrices: int
    """Weights of all blocks that are multiplied."""
    other_matrices: int
    """Those of the patches' embedding and of the merger."""
    vectors: int
    linears: Mapping[str, tuple[int, int]]
    """Name -> inputs and outputs of the linear layers of a block."""
    merger_linears: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class VisionSize(Tower):
    """A tower of Qwen's, with what decides how much a pass through it holds."""

    width: int
    mlp: int
    gated: bool
    """Whether the MLP has a gate (Qwen2.5-VL) or is two layers deep (Qwen2-VL)."""
    patch: int
    """Numbers per patch that come in."""
    out: int
    """Numbers per token that go out."""
    patches_per_token: int

    @property
    def pixels_per_token(self) -> int:
        """Of an image: a patch of Qwen's towers holds two copies of its pixels in three colours."""
        return self.patches_per_token * self.patch // (2 * 3)


@dataclass(frozen=True)
class ImageShape:
    """What a processor makes of an image."""

    pixels: tuple[int, ...]
    """Shape of `pixel_values`: (tiles, colours, height, width)."""
    tokens: int
    """Of the prompt."""


@dataclass(frozen=True)
class ModelSize:
    """A model's weights."""

    family: str
    language: LanguageSize
    vision: Tower | None
    config: str = ""
    """config.json of a model whose passes are counted on its class (`counted_pass.py`), not by formula."""
    image: ImageShape | None = None
    """Of such a model; None where no processor has said it."""

    @property
    def head(self) -> int:
        """Weights of the head, 0 where it is the embeddings' table."""
        return 0 if self.language.tied else self.language.table

    @property
    def vision_weights(self) -> int:
        """All weights of the vision tower and its merger."""
        vision = self.vision
        return 0 if vision is None else vision.block_matrices + vision.other_matrices + vision.vectors

    @property
    def weights(self) -> int:
        """All weights."""
        language = self.language
        return language.matrices + language.vectors + language.table + self.head + self.vision_weights

    @property
    def rounded(self) -> int:
        """Weights that autocast rounds as a whole to multiply them: all matrices but the head, which goes in tiles."""
        vision = self.vision
        return self.language.matrices + (vision.block_matrices + vision.other_matrices if vision is not None else 0)


FORMULAS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2")
"""Families whose weights and passes are counted by formula."""


class NoSize(UserError):
    """The weights of a model cannot be told apart by its config.json."""


def model_size(config: Mapping[str, Any]) -> ModelSize:
    """The size of a model whose config.json holds this, in today's form or as it was published.

    Raises:
        NoSize: transformers has no class for the family, or a number is missing.
    """
    family = config.get("model_type")
    properties = family_of(family)
    if properties is None:
        raise NoSize(f"model_type {family!r} is no family that transformers has a language model for")
    try:
        if family in FORMULAS:
            return ModelSize(str(family), _language(str(family), config), _vision(str(family), config))
        return _counted(properties.model_class, config)
    except KeyError as error:
        raise NoSize(f"config.json lacks {error.args[0]}, which says how large the model is") from error


def _language(family: str, config: Mapping[str, Any]) -> LanguageSize:
    text = config.get("text_config") or config
    width, heads = text["hidden_size"], text["num_attention_heads"]
    size = text.get("head_dim") or width // heads
    queries, keys = heads * size, text.get("num_key_value_heads", heads) * size
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    # Qwen 3 has norms of each head's queries and keys, Qwen 2 biases of q, k and v
    vectors = 2 * width + (2 * size if family == "qwen3_vl" else queries + 2 * keys)
    return LanguageSize(
        layers=text["num_hidden_layers"],
        width=width,
        heads=heads,
        queries=queries,
        keys=keys,
        mlp=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        tied=bool(tied),
        vectors_per_layer=vectors,
    )


def _counted(model_class: str, config: Mapping[str, Any]) -> ModelSize:
    """The size of a model of any other class: what the named linear layers lack is counted on the class itself."""
    import torch
    import transformers

    settings = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = getattr(transformers, model_class)(settings)
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    text = settings.get_text_config()
    has_tower = text is not settings
    decoder = model.get_decoder() if has_tower else model
    inside = {id(weight): weight for weight in decoder.parameters() if id(weight) not in tables}
    size = _language(model_class, text.to_dict() | {"tie_word_embeddings": len(tables) == 1})
    matrices, vectors = _by_kind(inside.values())
    size = replace(size, vectors_per_layer=(vectors - size.width) // size.layers)
    size = replace(size, other_matrices=matrices - size.matrices + vectors - size.vectors)
    if not has_tower:
        return ModelSize(str(config["model_type"]), size, None)
    matrices, vectors = _by_kind(w for w in model.parameters() if id(w) not in inside.keys() | tables)
    linears = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in inside.keys() | tables
    }
    tower = Tower(1, matrices, 0, vectors, linears, ())
    return ModelSize(str(config["model_type"]), size, tower, config=json.dumps(config, sort_keys=True))


def _by_kind(weights: Iterable[Any]) -> tuple[int, int]:
    """How many weights are of matrices, and how many of vectors."""
    sizes = [(weight.ndim > 1, weight.numel()) for weight in weights]
    return sum(size for is_matrix, size in sizes if is_matrix), sum(size for is_matrix, size in sizes if not is_matrix)


def _vision(family: str, config: Mapping[str, Any]) -> VisionSize | None:
    vision = config.get("vision_config")
    if not FAMILIES[family].has_vision:
        return None
    assert vision is not None, f"a {family} without a vision tower"
    channels = vision.get("in_channels", vision.get("in_chans", 3))
    side = vision.get("patch_size", 16 if family == "qwen3_vl" else 14)
    patch = channels * vision.get("temporal_patch_size", 2) * side**2
    merged = vision.get("spatial_merge_size", 2) ** 2
    layers = vision.get("depth", 27 if family == "qwen3_vl" else 32)
    mergers, positions = 1, 0
    if family == "qwen2_vl":
        width, out = vision.get("embed_dim", 1280), vision["hidden_size"]
        mlp = int(width * vision.get("mlp_ratio", 4))
    else:
        width, mlp, out = vision["hidden_size"], vision["intermediate_size"], vision["out_hidden_size"]
    gated = family == "qwen2_5_vl"
    if gated:
        linears = {"gate_proj": (width, mlp), "up_proj": (width, mlp), "down_proj": (mlp, width)}
    else:
        linears = {"fc1": (width, mlp), "fc2": (mlp, width)}
    norm = width if gated else 2 * width  # a LayerNorm has biases
    linears |= {"qkv": (width, 3 * width), "proj": (width, width)}
    merger = ((width * merged, width * merged), (width * merged, out))
    biases = sum(outs for _, outs in linears.values())
    other_vectors = norm + sum(outs for _, outs in merger)
    if family == "qwen3_vl":  # a merger for each of some layers too, whose norm is over the merged patches
        mergers += len(vision["deepstack_visual_indexes"])
        positions = vision["num_position_embeddings"] * width
        other_vectors = other_vectors * mergers + norm * (merged - 1) * (mergers - 1) + width
    return VisionSize(
        layers=layers,
        width=width,
        mlp=mlp,
        gated=gated,
        patch=patch,
        out=out,
        patches_per_token=merged,
        block_matrices=layers * sum(ins * outs for ins, outs in linears.values()),
        other_matrices=patch * width + mergers * sum(ins * outs for ins, outs in merger),
        vectors=layers * (2 * norm + biases) + other_vectors + positions,
        linears=linears,
        merger_linears=merger * mergers,
    )
