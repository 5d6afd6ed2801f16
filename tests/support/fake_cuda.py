"""Full-size models on a GPU that is not there: what a pass launches, writes and holds, and where the host waits.

Tensors are torch's fake ones on device `cuda`: they have shapes, types and a device and no values, so that a model of
three billion weights is built and run in seconds. A tensor on the wrong device raises as it does on a GPU. Integers and
booleans made without floats (token ids, masks, positions, lengths) keep their values beside them, and so does what is
on the CPU, so that code that looks at them goes the way it goes on a GPU; a look at a GPU is counted. Sampled tokens
are all 0.

    with fake_gpu() as gpu:
        model = ...                    # tests/support/fake_models.py
        with gpu.measured() as cost:
            loss = ...
            backward(loss)
        cost.launches, cost.attention, cost.syncs, cost.peak

What is counted is torch operations that are no views, which is about what a GPU is launched: an operation of several
kernels counts once. Written for torch 2.13.
"""

import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from fake_engine import backward as backward
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
GIB = 2**30
ALLOCATION = 512
"""Bytes that every allocation on a GPU is rounded up to (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""
VALUES_UP_TO = 2**22
"""Elements of the largest tensor whose values are computed."""

aten = torch.ops.aten

# Operations that launch nothing although torch does not mark all of them as views.
_NOTHING = {
    *("view", "t", "transpose", "expand", "slice", "select", "unsqueeze", "permute", "detach", "split", "unbind"),
    *("_unsafe_view", "alias", "as_strided", "squeeze", "_reshape_alias", "diagonal", "unfold", "split_with_sizes"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "lift_fresh", "_local_scalar_dense"),
    *("set_", "resize_", "is_same_size", "device"),
}
# Operations whose result has a size that only the values tell: the host waits for it.
_SIZED_BY_VALUES = {
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "_unique",
    "bincount",
}
# In place of a large tensor they write a small one: which argument says how much.
_WRITES_ARGUMENT = {"index_copy_": 3, "index_put_": 2, "scatter_": 3, "index_add_": 3}
_ATTENTION = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_flash_attention_forward": "flash",
    "_varlen_attn": "varlen",
}


@dataclass
class Cost:
    """What was done on the fake GPU."""

    kernels: Counter[str] = field(default_factory=Counter)
    """Launched operations by name."""
    attention: Counter[str] = field(default_factory=Counter)
    """Calls of attention by kernel: flash, varlen, efficient (a mask), cudnn, math (operation by operation)."""
    syncs: Counter[str] = field(default_factory=Counter)
    """Where the host waits for the GPU, by operation; uploads that block the host are `upload`."""
    written: int = 0
    """Bytes that operations have written, in new tensors or in place."""
    casts: int = 0
    """Bytes written by changes of type, part of `written`."""
    live: int = 0
    """Bytes on the GPU now."""
    peak: int = 0
    """Largest number of bytes on the GPU at once since the count began."""

    @property
    def launches(self) -> int:
        """Operations launched."""
        return sum(self.kernels.values())


class _Mode(FakeTensorMode):
    @property
    def avoid_device_init(self) -> bool:
        """Never looks for a real GPU, on a machine that has one neither."""
        return True


class FakeGpu(TorchDispatchMode):
    """Counts operations, keeps the values of integers, and answers where the host looks at them."""

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake, self.cost, self.live = fake, Cost(), 0
        self._storages: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """Count anew within the block; the count stays readable after it."""
        outer, self.cost = self.cost, Cost(live=self.live, peak=self.live)
        try:
            yield self.cost
        finally:
            self.cost = outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        on_gpu = any(tensor.device.type == "cuda" for tensor in tensors)
        if name == "_local_scalar_dense":
            if on_gpu:
                self.cost.syncs[name] += 1
            return _scalar(args[0])
        if name in _SIZED_BY_VALUES or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            if on_gpu:
                self.cost.syncs[name] += 1
            out = self._sized_by_values(func, args, kwargs, tensors[0].device)
        elif name == "masked_scatter_backward":  # selects by a mask, and then has the size that it is given
            self.cost.syncs[name] += 1
            with self.fake:
                out = torch.empty(args[2], dtype=args[0].dtype, device=args[0].device)
        else:
            if name in ("index", "index_put", "index_put_"):
                args = self._without_masks(args)
                on_cpu = [index for index in args[1] if index is not None and index.device.type == "cpu"]
                self.cost.syncs.update({"upload": len(on_cpu)} if on_gpu and on_cpu else {})
            out = func(*args, **kwargs)
            self._remember(func, name, args, kwargs, out)
        self._count(func, name, args, kwargs, out, on_gpu)
        return out

    def listed(self, tensor: torch.Tensor) -> Any:
        """`tensor.tolist()`, for which the host waits once."""
        if tensor.device.type == "cuda":
            self.cost.syncs["tolist"] += 1
        values = _values(tensor)
        assert values is not None, f"the host looks at {tensor.dtype} that nothing but a GPU can know"
        with _real():
            return values.tolist()

    # --- values of integers ------------------------------------------------------------------------------------

    def _sized_by_values(self, func: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
        arguments = _with_values(args, kwargs)
        assert arguments is not None, f"{func} has a size that depends on values that are not there"
        with _real():
            real = func(*arguments[0], **arguments[1])
        return tree_map(lambda value: self._fake(value, device) if isinstance(value, torch.Tensor) else value, real)

    def _fake(self, real: torch.Tensor, device: torch.device) -> torch.Tensor:
        with self.fake:
            fake = torch.empty(real.shape, dtype=real.dtype, device=device)
        fake.known_values = real  # type: ignore[attr-defined]
        return fake

    def _without_masks(self, args: Any) -> Any:
        """Indexing by a mask as the GPU does it: by the places of its ones, for which the host waits."""
        indices: list[Any] = []
        for index in args[1]:
            if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
                if index.device.type == "cuda":
                    self.cost.syncs["index by a mask"] += 1
                values = _values(index)
                assert values is not None, "a mask whose values are not there"
                with _real():
                    places = values.nonzero().unbind(1)
                indices += [self._fake(place, index.device) for place in places]
            else:
                indices.append(index)
        return (args[0], indices, *args[2:])

    def _remember(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
        """Values beside the results of operations on integers whose values are there."""
        if name in ("argmax", "multinomial") and _values(args[0]) is None:
            with _real():
                out.known_values = torch.zeros(out.shape, dtype=out.dtype)
            return
        results = tree_flatten(out)[0]
        if not results or not all(_keeps_values(result) for result in results):
            return
        arguments = _with_values(args, kwargs)
        if arguments is None or name in ("empty", "empty_like", "new_empty", "empty_strided", "_local_scalar_dense"):
            if name.endswith("_") and isinstance(args[0], FakeTensor):  # overwritten with what is not known
                args[0].known_values = None  # type: ignore[attr-defined]
            return
        with _real():
            real = func(*arguments[0], **arguments[1])
        for result, values in zip(results, tree_flatten(real)[0], strict=True):
            result.known_values = values

    # --- counting ------------------------------------------------------------------------------------------------

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, on_gpu: bool) -> None:
        results = [leaf for leaf in tree_flatten(out)[0] if isinstance(leaf, torch.Tensor)]
        new = sum(self._track(tensor) for tensor in results if tensor.device.type == "cuda")
        there = any(tensor.device.type == "cuda" for tensor in results)
        if name in ("_to_copy", "copy_") and not kwargs.get("non_blocking", len(args) > 2 and args[2]):
            source = args[1] if name == "copy_" else args[0]
            if source.device.type == "cuda" and not there:
                self.cost.syncs["download"] += 1
            if source.device.type == "cpu" and there:
                self.cost.syncs["upload"] += 1
        if not (on_gpu or there) or func.is_view or name in _NOTHING:
            return
        cost = self.cost
        cost.kernels[name] += 1
        if name in _ATTENTION:
            cost.attention[_ATTENTION[name]] += 1
        if name in _WRITES_ARGUMENT and len(args) > _WRITES_ARGUMENT[name]:
            source = args[_WRITES_ARGUMENT[name]]
            new += source.numel() * source.element_size() if isinstance(source, torch.Tensor) else 0
        elif name.endswith("_"):
            new += sum(tensor.numel() * tensor.element_size() for tensor in results)
        cost.written += new
        if name == "_to_copy" and args[0].dtype != out.dtype:
            cost.casts += new

    def _track(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage in self._storages:
            return 0
        size = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
        self._storages[storage] = size
        self.live += size
        self.cost.live, self.cost.peak = self.live, max(self.cost.peak, self.live)
        weakref.finalize(storage, self._free, size)
        return storage.nbytes()

    def _free(self, size: int) -> None:
        self.live -= size
        self.cost.live = self.live


def _keeps_values(leaf: Any) -> bool:
    if not isinstance(leaf, FakeTensor) or (leaf.is_floating_point() and leaf.device.type != "cpu"):
        return False
    return leaf.numel() <= VALUES_UP_TO


def _values(tensor: torch.Tensor) -> torch.Tensor | None:
    return getattr(tensor, "known_values", None) if isinstance(tensor, FakeTensor) else tensor


def _with_values(args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """The arguments with real tensors on the CPU; None if one's values are not there."""
    leaves, _ = tree_flatten((args, kwargs))
    if any(isinstance(leaf, torch.Tensor) and _values(leaf) is None for leaf in leaves):
        return None

    def real(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return _values(leaf)
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    return tree_map(real, (args, kwargs))


def _scalar(tensor: torch.Tensor) -> Any:
    values = _values(tensor)
    assert values is not None, f"the host looks at a {tensor.dtype} that nothing but a GPU can know"
    with _real():
        return values.item()


@contextmanager
def _real() -> Iterator[None]:
    """Computation on real tensors, out of the modes' sight."""
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        yield


class _GpuFunctions(TorchFunctionMode):
    """`scaled_dot_product_attention` goes to the kernel that a GPU of today would choose.

    Rules: flash takes no mask and any grouping of heads, in half precision; cuDNN, first choice on a Hopper GPU where
    it is not switched off, takes both; memory-efficient takes a mask, and keys for every head; what nobody takes is
    computed operation by operation (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp).
    """

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor:  # reads the memory of tensors in a list, which is not there
            data = tree_map(lambda leaf: leaf.item() if isinstance(leaf, FakeTensor) else leaf, args[0])
            return func(data, *args[1:], **kwargs)
        if func is scaled_dot_product_attention and args[0].device.type == "cuda":
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        q: Any,
        k: Any,
        v: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        scale, grouped = options.get("scale"), q.size(1) != k.size(1)
        if torch.is_autocast_enabled("cuda"):
            lower = torch.get_autocast_dtype("cuda")
            q, k, v = (x.to(lower) for x in (q, k, v))
            if attn_mask is not None and attn_mask.dtype != torch.bool:
                attn_mask = attn_mask.to(lower)
        assert q.dtype == k.dtype == v.dtype, f"attention of {q.dtype}, {k.dtype} and {v.dtype}"
        assert attn_mask is None or attn_mask.dtype in (torch.bool, q.dtype), f"a mask of {attn_mask.dtype}"
        half = q.dtype in (torch.bfloat16, torch.float16)
        graded = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -torch.inf)
        if half and torch.backends.cuda.cudnn_sdp_enabled() and not grouped:
            bias = None if attn_mask is None else attn_mask.expand(*q.shape[:3], k.size(2))
            return aten._scaled_dot_product_cudnn_attention(q, k, v, bias, graded, dropout_p, is_causal, scale=scale)[0]
        if half and attn_mask is None:
            return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
        if grouped:
            self.gpu.cost.attention["math"] += 1
            return aten._scaled_dot_product_attention_math(
                q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
            )[0]
        bias = None if attn_mask is None else attn_mask.expand(*q.shape[:3], k.size(2))
        return aten._scaled_dot_product_efficient_attention(q, k, v, bias, graded, dropout_p, is_causal, scale=scale)[0]


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """A fake GPU within the block: tensors made there are fake, those on the CPU too."""
    fake = _Mode(allow_non_fake_inputs=True)
    gpu = FakeGpu(fake)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        for target, stand_in in (
            ("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            ("torch.cuda.is_bf16_supported", lambda *_, **__: True),
            ("torch.cuda._lazy_init", lambda: None),
            ("torch.cuda.is_current_stream_capturing", lambda: False),
            ("torch.cuda.get_device_capability", lambda *_: (9, 0)),  # an H100's
            # its Triton kernel cannot be run on fake tensors; in torch's operations, the tiles are a CPU's
            ("trl.kernels.chunked_logprob._use_triton", lambda _: False),
            ("trl.trainer.utils._use_triton", lambda _: False),
            ("torch.Tensor.pin_memory", lambda tensor, *_: tensor),
            (
                "torch._subclasses.fake_tensor.FakeTensor.tolist",
                lambda tensor: gpu.listed(tensor),
            ),  # torch's own looks at every element
            ("torch._C._current_graph_task_id", lambda: 1),  # checkpointing computes a layer once in `backward`
        ):
            stack.enter_context(patch(target, stand_in))
        for mode in (fake, gpu, _GpuFunctions(gpu)):
            stack.enter_context(mode)
        yield gpu
