"""Matrix products of linear layers in half precision: no weight is rounded twice, and none has a slow width.

Under autocast torch rounds every float32 weight in each forward pass, and once per token while it decodes: 25 GB of
traffic for three billion weights. Here a layer keeps a rounded copy until its weight changes. The copy lies in memory
that stays, so that a recorded CUDA graph reads the new numbers after a step of the optimizer. Products are those of
autocast; the gradient of a weight is summed in float32 and not rounded in between.

Kernels of Hopper read rows of 16 bytes. A matrix whose width is not a multiple of 8 numbers, such as 3,420 in the tower
of Qwen2.5-VL-3B, goes to slow kernels of an older kind. Its copy is filled up with zeros to a multiple of 128: a tile
of a product is that wide, so 3,456 columns take no more tiles than 3,420.
"""

from types import MethodType
from typing import Any

import torch
from torch.nn.functional import linear, pad
from torch.optim.optimizer import register_optimizer_step_post_hook

from open_r1.modeling.sharding import weights_are_sharded

TILE = 128
"""Columns of a tile of a product."""
ALIGNED = 8
"""Numbers in half precision that kernels of Hopper read at once."""
DEVICES = {"cuda"}
"""Kinds of devices on which products are made from copies."""


class OptimizerSteps:
    """How many steps optimizers have made: a fused one changes weights and leaves their versions as they are."""

    count = 0
    _counts = False

    @classmethod
    def begin(cls) -> None:
        """Count the steps of all optimizers from now on."""
        if not cls._counts:
            register_optimizer_step_post_hook(cls._add)
            cls._counts = True

    @classmethod
    def _add(cls, *_: Any) -> None:
        cls.count += 1


class Copy:
    """A weight or a bias as products read it: in half precision, followed by zeros.

    Args:
        wrapper: LoRA's layer around the linear layer, which changes the weight when adapters are merged into it.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._copy = torch.empty(0)
        self._source: torch.Tensor | None = None
        self._state: Any = None

    def of(self, source: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """`source` in `dtype` and at least as large a shape; itself where it is so already."""
        if source.dtype == dtype and source.shape == shape:
            return source.detach()
        merged = None if self._wrapper is None else tuple(self._wrapper.merged_adapters)
        state = (OptimizerSteps.count, source._version, source.data_ptr(), merged)
        if source is self._source and state == self._state and (self._copy.dtype, self._copy.shape) == (dtype, shape):
            return self._copy
        with torch.inference_mode(False), torch.no_grad():
            if (self._copy.dtype, self._copy.shape, self._copy.device) != (dtype, shape, source.device):
                self._copy = torch.zeros(shape, dtype=dtype, device=source.device)
            self._copy[tuple(slice(size) for size in source.shape)].copy_(source)
        if not (source.is_cuda and torch.cuda.is_current_stream_capturing()):  # a graph writes when it is replayed
            self._source, self._state = source, state
        return self._copy


class Product(torch.autograd.Function):
    """`linear` with copies of weight and bias, differentiated by weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        copy: torch.Tensor,
        bias_copy: torch.Tensor | None,
    ) -> torch.Tensor:
        """(..., outs) of (..., ins) `x` in the type of the (outs, ins) `copy`."""
        ctx.save_for_backward(x, copy)
        ctx.of_weight = weight.shape, weight.dtype
        ctx.of_bias = None if bias is None else (len(bias), bias.dtype)
        return linear(x, copy, bias_copy)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore
        """Gradients of x, weight and bias."""
        x, copy = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ copy
        rows = gradient.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            shape, dtype = ctx.of_weight
            to_weight = _summed(rows.t(), x.flatten(0, -2), dtype)[: shape[0], : shape[1:].numel()].view(shape)
        if ctx.needs_input_grad[2]:
            count, dtype = ctx.of_bias
            to_bias = rows.sum(0, dtype=dtype)[:count]
        return to_x, to_weight, to_bias, None, None


def _summed(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The product of two matrices in half precision, in `dtype`."""
    if left.is_cuda and dtype == torch.float32 and torch.version.cuda is not None:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def multiply(layer: Any, x: torch.Tensor, outs: int | None = None) -> torch.Tensor:
    """Forward of a linear layer, (..., ins) to (..., outs).

    Args:
        layer: adapted by `multiply_copies`. A convolution that sees one patch at a time is a matrix too.
        x: its input, which zeros may follow in the last dimension.
        outs: width of the result; the columns after those of the layer are zeros. None for the layer's own.
    """
    weight, bias = layer.weight, layer.bias
    shape = outs or len(weight), x.size(-1)
    dtype = product_dtype(x)
    if not _takes_copies(layer, x, dtype):
        if shape != (len(weight), weight[0].numel()):
            weight = pad(weight.flatten(1), (0, shape[1] - weight[0].numel(), 0, shape[0] - len(weight)))
            bias = bias if bias is None else pad(bias, (0, shape[0] - len(bias)))
        return linear(x, weight.flatten(1), bias)
    copies = layer.copies
    copy = copies[0].of(weight, dtype, shape if weight.ndim == 2 else (len(weight), *weight.shape[1:])).flatten(1)
    bias_copy = None if bias is None else copies[1].of(bias, dtype, shape[:1])
    x = x.to(dtype)
    if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
        return Product.apply(x, weight, bias, copy, bias_copy)  # type: ignore[return-value]
    return linear(x, copy, bias_copy)


def aligned_width(width: int, x: torch.Tensor) -> int:
    """The width to which a layer's result is filled up with zeros where `x` goes in, because a GPU is faster then."""
    is_slow = width % ALIGNED and x.device.type == "cuda" and product_dtype(x).itemsize == 2
    return -(-width // TILE) * TILE if is_slow else width


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """The type in which a tensor is multiplied."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _takes_copies(layer: Any, x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the layer's weights are whole and on a GPU, and products in half precision."""
    if x.device.type not in DEVICES or dtype.itemsize != 2 or layer.copies is None:
        return False
    return not layer.weight.is_inference()  # such a tensor has no version


def multiply_copies(model: torch.nn.Module) -> None:
    """Let the linear layers of a model multiply by copies of their weights where that is faster.

    Layers of other classes (in four bits, or LoRA's wrappers) stay; the plain ones within LoRA's are adapted. Sharded
    weights, which are gathered for each pass anew, are not copied.
    """
    wrappers = {id(m.base_layer): m for m in model.modules() if hasattr(m, "merged_adapters")}
    OptimizerSteps.begin()
    for layer in model.modules():
        if type(layer) is torch.nn.Linear and (not hasattr(layer, "copies") or id(layer) in wrappers):
            hold_copies(layer, wrappers.get(id(layer)))
            layer.forward = MethodType(multiply, layer)


def hold_copies(layer: Any, wrapper: Any = None) -> None:
    """Prepare a layer for `multiply`; see `Copy`."""
    layer.copies = None if weights_are_sharded() else (Copy(wrapper), Copy(wrapper))
