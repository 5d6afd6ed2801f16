"""Back-propagation on a fake GPU, which torch's engine refuses: it asks the driver for the GPU's streams."""

import heapq
from dataclasses import dataclass
from typing import Any

import torch


def backward(loss: torch.Tensor) -> None:
    """Back-propagate a scalar, as `loss.backward()`, which asks a driver for the streams of a GPU and fails without.

    Nodes run in the reverse order of their creation, as in torch's engine; none is held longer than there: let go of
    what else holds the graph (outputs, the loss) for a peak that a GPU would see. A weight that several nodes have a
    gradient for, as a head that is the embeddings' table, gets their sum when the last has come: until then the engine
    holds it (torch/csrc/autograd/engine.cpp, InputBuffer). Hooks on tensors are not run.
    """
    root = loss.grad_fn
    assert root is not None, "the loss has no gradient"
    heap: list[tuple[int, int, Any]] = []
    pending: dict[int, list[Any]] = {}
    leaves = _edges_to_leaves(root)
    with torch.no_grad():
        _send(heap, pending, leaves, root, loss.output_nr, torch.ones_like(loss))
        loss.detach_()
        del root
        while heap:
            _, number, node = heapq.heappop(heap)
            gradients = pending.pop(number)
            edges = node.next_functions
            written_in_python = isinstance(node, torch.autograd.function.BackwardCFunction)
            results = node.apply(*_materialized(node, gradients)) if written_in_python else node(*gradients)
            del node, gradients
            results = results if isinstance(results, tuple) else (results,)
            for (target, place), gradient in zip(edges, results, strict=False):
                if target is not None:
                    _send(heap, pending, leaves, target, place, gradient)
            del edges, results


@dataclass
class _Leaf:
    """What comes to a weight."""

    edges: int = 0
    """Gradients that have not come yet."""
    gradient: torch.Tensor | None = None
    """Sum of those that have."""


def _edges_to_leaves(root: Any) -> dict[Any, _Leaf]:
    leaves: dict[Any, _Leaf] = {}
    waiting, seen = [root], {root}
    while waiting:
        for target, _ in waiting.pop().next_functions:
            if hasattr(target, "variable"):
                leaves.setdefault(target.variable, _Leaf()).edges += 1
            elif target is not None and target not in seen:
                seen.add(target)
                waiting.append(target)
    return leaves


def _send(
    heap: list[Any],
    pending: dict[int, list[Any]],
    leaves: dict[Any, _Leaf],
    node: Any,
    place: int,
    gradient: torch.Tensor | None,
) -> None:
    """Add a gradient to what waits for a node; at a leaf, to the leaf's own when it is the last."""
    if hasattr(node, "variable"):
        _reach(leaves[node.variable], node, gradient)
        return
    if gradient is None:
        return
    gradient = _as_wanted(gradient, node._input_metadata[place])
    number = node._sequence_nr()
    if number not in pending:
        pending[number] = [None] * len(node._input_metadata)
        heapq.heappush(heap, (-number, number, node))
    waiting = pending[number]
    waiting[place] = gradient if waiting[place] is None else waiting[place] + gradient


def _reach(leaf: _Leaf, node: Any, gradient: torch.Tensor | None) -> None:
    leaf.edges -= 1
    if gradient is not None:
        gradient = _as_wanted(gradient, node._input_metadata[0])
        leaf.gradient = gradient if leaf.gradient is None else leaf.gradient.add_(gradient)
    if leaf.edges or leaf.gradient is None:
        return
    weight, leaf.gradient, gradient = node.variable, None, leaf.gradient
    if weight.grad is None:
        weight.grad = gradient
    else:
        weight.grad += gradient


def _as_wanted(gradient: torch.Tensor, wanted: Any) -> torch.Tensor:
    if gradient.shape != wanted.shape:
        gradient = gradient.sum_to_size(wanted.shape)
    if gradient.dtype != wanted.dtype:
        gradient = gradient.to(wanted.dtype)
    return gradient


def _materialized(node: Any, gradients: list[Any]) -> list[Any]:
    if not getattr(node, "materialize_grads", True):
        return gradients
    filled = []
    for gradient, wanted in zip(gradients, node._input_metadata, strict=True):
        if gradient is None and wanted.dtype.is_floating_point:
            gradient = torch.zeros(wanted.shape, dtype=wanted.dtype, device=wanted.device)
        filled.append(gradient)
    return filled
