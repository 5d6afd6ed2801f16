"""The vision tower: at most two attention calls a layer for any number of images and windows, and no host sync.

transformers 5.17 calls attention once per image, or per window in layers that have windows, and every layer asks the
GPU how long they are: 452 calls and 96 waits for one image in Qwen2.5-VL-3B. Here the lengths come from grids that
stay on the CPU. On a GPU in half precision one call of torch's varlen attention (flash) serves a layer; elsewhere
images and windows are rows of a batch. Values and gradients are the same up to rounding.

Shapes: L patches of all images, H heads of size D.
"""

from collections import OrderedDict
from functools import cached_property
from types import MethodType
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from open_r1.modeling.gpu_kernels import varlen_serves
from open_r1.modeling.lean_layers import rotate, signed
from open_r1.modeling.products import hold_copies, multiply
from open_r1.modeling.prompt_batch import upload

TOWERS = {
    "Qwen2VisionTransformerPretrainedModel",
    "Qwen2_5_VisionTransformerPretrainedModel",
    "Qwen3VLVisionModel",
    "Qwen3VLMoeVisionModel",
}
"""Classes of transformers by name, whose layers have one form; towers of other classes keep their own attention."""
LAYOUTS = 64
"""Layouts of batches of images that are remembered, each about 30 kB per image of 784 patches."""


class Spans:
    """Consecutive spans of patches within which attention stays: images, or windows.

    Args:
        bounds: (spans + 1,) int32 on the CPU, where each span begins and the last one ends.
        device: where the patches are.
    """

    def __init__(self, bounds: torch.Tensor, device: torch.device) -> None:
        self.lengths: list[int] = bounds.diff().tolist()
        self.longest = max(self.lengths)
        self.bounds = upload(bounds, device)
        self._device = device

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention within each span; all (L, H, D)."""
        if varlen_serves(query.device, query.dtype):
            bounds, longest = self.bounds, self.longest
            return varlen_attn(query, key, value, bounds, bounds, longest, longest, scale=scale)  # type: ignore
        if min(self.lengths) == self.longest:
            return _attend_in_rows(query, key, value, self.longest, None, scale)
        rows = self._rows
        states = [Gathered.apply(x, rows.patches, rows.places, None) for x in (query, key, value)]
        parts = [
            _attend_in_rows(*(x[start:stop] for x in states), width, mask, scale)  # type: ignore[misc]
            for start, stop, width, mask in rows.batches
        ]
        return Gathered.apply(torch.cat(parts), rows.places, rows.patches, rows.empty)  # type: ignore[return-value]

    @cached_property
    def _rows(self) -> "Rows":
        return Rows(self.lengths, self._device)


class Rows:
    """Spans of different lengths as rows of two batches, filled up to the longest of each.

    Args:
        lengths: of the spans in patches, L in all.
        device: where the patches are.
    """

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        longest, sizes = max(lengths), sorted(set(lengths))

        def scores(limit: int) -> int:
            """Attention scores if spans of up to `limit` patches make one batch and the others another."""
            short = sum(length <= limit for length in lengths)
            return short * limit**2 + (len(lengths) - short) * longest**2

        limit = min(sizes, key=scores)
        spans = list(torch.arange(sum(lengths)).split(lengths))
        groups = [[s for s in spans if len(s) <= limit], [s for s in spans if len(s) > limit]]
        padded = [torch.nn.utils.rnn.pad_sequence(group, True, -1) for group in groups if group]  # (rows, width)
        slots = torch.cat([group.flatten() for group in padded])
        self.patches = upload(slots.clamp(min=0), device)
        """(slots,) the patch at each place of the rows, 0 where none is."""
        self.empty = upload(slots < 0, device)
        """(slots,) true where no patch is."""
        self.places = upload(slots.argsort()[-sum(lengths) :], device)
        """(L,) where each patch is."""
        self.batches: list[tuple[int, int, int, torch.Tensor | None]] = []
        """First and last slot of each batch, width of its rows, (rows, 1, 1, width) what they may look at."""
        start = 0
        for group in padded:
            full = group >= 0
            mask = None if full.all() else upload(full[:, None, None], device)
            self.batches.append((start, start + group.numel(), group.size(1), mask))
            start += group.numel()


class Gathered(torch.autograd.Function):
    """Rows of a tensor, each used once at most: then the gradient is a gather too.

    torch's own backward pass adds into zeros, which takes 20 times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, index: torch.Tensor, back: torch.Tensor, unused: torch.Tensor | None
    ) -> torch.Tensor:
        """`rows[index]`; `back` says where each row went, `unused` which rows went nowhere (None: all are used).

        What else `index` repeats must have no gradient.
        """
        ctx.save_for_backward(back, unused)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # pyright: ignore
        """The gradient of each row from where it went."""
        back, unused = ctx.saved_tensors
        gradient = gradient.index_select(0, back)
        if unused is not None:
            gradient.masked_fill_(unused.view(-1, *[1] * (gradient.ndim - 1)), 0)
        return gradient, None, None, None


def _attend_in_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, width: int, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Attention of (rows * width, H, D) within each row."""
    q, k, v = (x.unflatten(0, (-1, width)).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2).flatten(0, 1)


class Layouts:
    """What a tower's layers need to know of a batch of images, by their grids; made on the CPU, and remembered.

    Args:
        config: the tower's.
        stock: whether transformers' own attention will read them.
        resampled: keyword arguments of `get_vision_interpolation_indices_and_weights`, for a tower with a learned grid
            of positions that is resampled to each image; None for one without.
    """

    def __init__(self, config: Any, stock: bool, resampled: dict[str, Any] | None = None) -> None:
        self._config, self._stock, self._resampled = config, stock, resampled
        self._layouts: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()

    def __call__(self, grids: torch.Tensor, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the tower's forward, in place of what it would ask the GPU for.

        Args:
            grids: (images, 3) patches in time, height and width; on the CPU, or the host waits.
            device: where the patches are.
        """
        key = (device, *map(tuple, grids.tolist()))
        if key not in self._layouts:
            with torch.inference_mode(False), torch.no_grad():
                self._layouts[key] = self._layout(grids.cpu(), device)
        self._layouts.move_to_end(key)
        if len(self._layouts) > LAYOUTS:
            self._layouts.popitem(last=False)
        return self._layouts[key]

    def _layout(self, grids: torch.Tensor, device: torch.device) -> dict[str, Any]:
        merge = self._config.spatial_merge_size
        images = Spans(get_vision_cu_seqlens(grids), device)
        layout = {
            "position_ids": upload(get_vision_position_ids(grids, merge), device),
            "cu_seqlens": images.bounds if self._stock else images,
            "max_seqlen": images.longest,
        }
        if self._resampled is not None:
            indices, weights = get_vision_interpolation_indices_and_weights(grids, **self._resampled)
            layout |= {"interp_indices": upload(indices, device), "interp_weights": upload(weights, device)}
        if not hasattr(self._config, "window_size"):
            return layout
        order, bounds = get_vision_window_index(grids, merge, self._config.window_size, self._config.patch_size)
        windows = Spans(bounds, device)
        return layout | {
            "window_index": upload(order, device),
            "cu_window_seqlens": windows.bounds if self._stock else windows,
            "max_window_seqlen": windows.longest,
        }


def adapt_tower(tower: Any) -> None:
    """Let a vision tower of a class in `TOWERS` attend in at most two calls a layer and never wait for the GPU.

    Its grids may then be on the CPU wherever the patches are, and should be. Where `eager` or a flash implementation
    of transformers is chosen, that one computes attention. A tower of another class only gets its grids on its device.
    """
    if hasattr(tower, "_layouts"):
        return
    if type(tower).__name__ not in TOWERS:
        tower._layouts = None
        tower.register_forward_pre_hook(_move_grids, with_kwargs=True)
        return
    attention = tower.config._attn_implementation
    stock = attention == "eager" or "flash" in attention
    resampled = None
    if hasattr(tower, "num_grid_per_side"):
        resampled = {
            "num_grid_per_side": tower.num_grid_per_side,
            "mode": tower.interpolation_mode,
            "align_corners": tower.interpolation_align_corners,
            "spatial_merge_size": tower.config.spatial_merge_size,
        }
    tower._layouts = Layouts(tower.config, stock, resampled)

    def lay_out(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        grids = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        device = (args[0] if args else kwargs["hidden_states"]).device
        return args, kwargs | tower._layouts(grids, device)

    tower.register_forward_pre_hook(lay_out, with_kwargs=True)
    _embed_patches_by_matrix(tower.patch_embed)
    if not stock:
        tower.rotary_pos_emb.register_forward_hook(_sign_the_sine)
        for block in tower.blocks:
            block.attn.forward = MethodType(_attention_forward, block.attn)


def _move_grids(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Put a tower's grids where its patches are."""
    device = (args[0] if args else kwargs["hidden_states"]).device
    if "grid_thw" in kwargs:
        kwargs["grid_thw"] = kwargs["grid_thw"].to(device)
    else:
        args = (args[0], args[1].to(device), *args[2:])
    return args, kwargs


def feeds_later_layers(backbone: Any) -> bool:
    """Whether features of the vision tower come among later layers of the language model too, as in Qwen3-VL."""
    return hasattr(getattr(backbone, "visual", None), "deepstack_merger_list")


def adapt_vision(backbone: Any) -> None:
    """Let a backbone look at images without waiting for the GPU: its tower, and how features come among embeddings.

    transformers compares the number of image tokens with that of features on the host, and so does the backward pass of
    its `masked_scatter`. Here the grids tell the number, and on a GPU the GPU compares.
    """
    if not hasattr(backbone, "visual") or hasattr(backbone.visual, "_layouts"):
        return
    adapt_tower(backbone.visual)
    if backbone.visual._layouts is None or feeds_later_layers(backbone):
        return  # its own forward inserts the features, in all layers where they belong

    def insert_later(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("pixel_values") is None or kwargs.get("input_ids") is None:
            return args, kwargs
        patches, grids = kwargs.pop("pixel_values"), kwargs["image_grid_thw"]

        def insert(_module: Any, embedding_args: Any, output: torch.Tensor) -> torch.Tensor:
            handle.remove()
            features = torch.cat(backbone.get_image_features(patches, grids).pooler_output)
            return insert_features(output, embedding_args[0] == backbone.config.image_token_id, features)

        # In the embeddings' own call, after the hooks of ZeRO-3: see `adapt_backbone`.
        handle = backbone.get_input_embeddings().register_forward_hook(insert)
        return args, kwargs

    backbone.register_forward_pre_hook(insert_later, with_kwargs=True)


def insert_features(embeddings: torch.Tensor, is_image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Embeddings (B, P, hidden) with features (tokens, hidden) in order where (B, P) `is_image` is true.

    Raises:
        ValueError: there are more or fewer features than such places. (On a GPU a RuntimeError, later.)
    """
    count, tokens = is_image.sum(), len(features)
    if is_image.device.type == "cpu" and int(count) != tokens:
        raise ValueError(f"the prompts have {int(count)} image tokens and their images {tokens} features")
    torch._assert_async(count == tokens, "more or fewer image tokens than features of images")
    places = torch.nonzero_static(is_image.flatten(), size=tokens).flatten()
    flat = embeddings.flatten(0, 1)
    return flat.index_copy(0, places, features.to(flat.dtype)).view_as(embeddings)


def _embed_patches_by_matrix(embedding: Any) -> None:
    """One matrix product: the convolution sees one patch at a time, which takes 10 times as long on a CPU."""
    projection = embedding.proj
    assert projection.kernel_size == projection.stride
    hold_copies(projection)
    embedding.forward = MethodType(_embed, embedding)


def _embed(self: Any, patches: torch.Tensor) -> torch.Tensor:
    """Forward of the patches' embedding, (L, patch values) to (L, hidden)."""
    return multiply(self.proj, patches.to(self.proj.weight.dtype))


def _attention_forward(
    self: Any,
    hidden_states: torch.Tensor,
    cu_seqlens: Spans,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **_: Any,
) -> torch.Tensor:
    """Forward of a tower's attention layer, (L, hidden) to (L, hidden); see `adapt_tower`."""
    states = self.qkv(hidden_states).unflatten(1, (3, self.num_heads, -1))  # (L, 3, H, D)
    tables = [table[:, None, None] for table in position_embeddings]
    query, key, value = RotatedStates.apply(states, *tables)  # type: ignore[misc]
    return self.proj(cu_seqlens.attend(query, key, value, self.scaling).flatten(1))


def _sign_the_sine(_module: Any, _args: Any, output: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """Tables as `rotate` takes them, once for all layers."""
    return signed(*output)


class RotatedStates(torch.autograd.Function):
    """Rotary position embedding of the queries and keys among (L, 3, H, D), computed in float32."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, all (L, H, D); the tables are (L, 1, 1, D)."""
        ctx.save_for_backward(cos, sin)
        query, key = rotate(states[:, :2], cos, sin).unbind(1)
        return query, key, states[:, 2]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # pyright: ignore
        """Gradient of all states."""
        total = gradients[0].new_empty(len(gradients[0]), 3, *gradients[0].shape[1:])
        rotate(torch.stack(gradients[:2], 1), *ctx.saved_tensors, out=total[:, :2], back=True)
        total[:, 2] = gradients[2]
        return total, None, None
