"""How many weights a model has, counted from its config.json alone, by what is done with them.

Matrices are multiplied, and under autocast rounded first; vectors (norms and biases) are not; the embeddings' table is
looked up, and is the head too where the two are tied. Nothing is loaded.
"""

from collections.abc import Mapping
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
class VisionSize:
    """A vision tower with what leads to the language model."""

    layers: int
    width: int
    mlp: int
    gated: bool
    """Whether the MLP has a gate (Qwen2.5-VL) or is two layers deep (Qwen2-VL)."""
    patch: int
    """Numbers per patch that come in."""
    out: int
    """Numbers per token that go out."""
    patches_per_token: int
    block_matrices: int
    """Weights of all blocks that are multiplied."""
    other_matrices: int
    """Those of the patches' embedding and of the merger."""
    vectors: int
    linears: Mapping[str, tuple[int, int]]
    """Name -> inputs and outputs of the linear layers of a block."""
    merger_linears: tuple[tuple[int, int], ...]
    is_fed: bool = True
    """Whether what it computes is planned; of Gemma's tower only the weights are."""

    @property
    def pixels_per_token(self) -> int:
        """Of an image: a patch of Qwen's towers holds two copies of its pixels in three colours."""
        return self.patches_per_token * self.patch // (2 * 3)


@dataclass(frozen=True)
class ModelSize:
    """A model's weights."""

    family: str
    language: LanguageSize
    vision: VisionSize | None

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


class NoSize(UserError):
    """The weights of a model cannot be told apart by its config.json."""


def model_size(config: Mapping[str, Any]) -> ModelSize:
    """The size of a model whose config.json holds this, in today's form or as it was published.

    Raises:
        NoSize: transformers has no class for the family, a number is missing, or its vision tower is of another kind.
    """
    family = config.get("model_type")
    properties = family_of(family)
    if properties is None:
        raise NoSize(f"model_type {family!r} is no family that transformers has a language model for")
    has_tower = config.get("vision_config") is not None
    if has_tower and family not in FAMILIES:
        raise NoSize(f"the vision tower of model_type {family!r} is of a kind whose memory is not planned here")
    try:
        if family in FAMILIES:
            language = _language(str(family), config)
            return ModelSize(str(family), language, _vision(str(family), config, language))
        return ModelSize(str(family), _counted_language(properties.model_class, config), None)
    except KeyError as error:
        raise NoSize(f"config.json lacks {error.args[0]}, which says how large the model is") from error


def _language(family: str, config: Mapping[str, Any]) -> LanguageSize:
    text = config.get("text_config") or config
    width, heads = text["hidden_size"], text["num_attention_heads"]
    size = text.get("head_dim") or width // heads
    queries, keys = heads * size, text.get("num_key_value_heads", heads) * size
    is_gemma = family == "gemma3"
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", is_gemma))
    vectors = {
        "gemma3": 4 * width + 2 * size,  # norms around attention and MLP and of each head's queries and keys
        "qwen3_vl": 2 * width + 2 * size,
    }.get(family, 2 * width + queries + 2 * keys)  # Qwen 2: biases of q, k, v
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


def _counted_language(model_class: str, config: Mapping[str, Any]) -> LanguageSize:
    """The size of a text model of any other class: what the named linear layers lack is counted on the class itself."""
    import torch
    import transformers

    settings = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = getattr(transformers, model_class)(settings)
    weights = dict(model.named_parameters())
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    inside = [weight for weight in weights.values() if id(weight) not in tables]
    size = _language(model_class, settings.to_dict() | {"tie_word_embeddings": len(tables) == 1})
    matrices = sum(weight.numel() for weight in inside if weight.ndim > 1)
    vectors = sum(weight.numel() for weight in inside if weight.ndim == 1)
    size = replace(size, vectors_per_layer=(vectors - size.width) // size.layers)
    return replace(size, other_matrices=matrices - size.matrices + vectors - size.vectors)


def _vision(family: str, config: Mapping[str, Any], language: LanguageSize) -> VisionSize | None:
    vision = config.get("vision_config")
    if family == "gemma3":
        return None if vision is None else _siglip(vision, language)
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


def _siglip(vision: Mapping[str, Any], language: LanguageSize) -> VisionSize:
    """Gemma's tower; what it holds while it computes is not planned."""
    width, mlp, layers = vision["hidden_size"], vision["intermediate_size"], vision["num_hidden_layers"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    patch = vision.get("num_channels", 3) * vision["patch_size"] ** 2
    linears = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (width, width))
    linears |= {"fc1": (width, mlp), "fc2": (mlp, width)}
    block = sum(ins * outs for ins, outs in linears.values())
    block_vectors = 4 * width + sum(outs for _, outs in linears.values())
    # a head that pools is one block more, with one norm and a query; the published Gemma 3 has none
    pools = vision.get("vision_use_head", True)
    return VisionSize(
        layers=layers,
        width=width,
        mlp=mlp,
        gated=False,
        patch=patch,
        out=language.width,
        patches_per_token=1,
        block_matrices=layers * block,
        other_matrices=patch * width + patches * width + width * language.width + (block if pools else 0),
        # biases of the patches' embedding, the last LayerNorm, and the norm before the projection
        vectors=layers * block_vectors + 4 * width + (block_vectors - width if pools else 0),
        linears=linears,
        merger_linears=((width, language.width),),
        is_fed=False,
    )
