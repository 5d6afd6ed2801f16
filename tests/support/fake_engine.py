"""Back-propagation on a fake GPU, which torch's engine refuses: it asks the driver for the GPU's streams."""

import heapq
from typing import Any

import torch


def backward(loss: torch.Tensor) -> None:
    """Back-propagate a scalar, as `loss.backward()`, which asks a driver for the streams of a GPU and fails without.

    Nodes run in the reverse order of their creation, as in torch's engine; none is held longer than there: let go of
    what else holds the graph (outputs, the loss) for a peak that a GPU would see. Hooks on tensors are not run.
    """
    root = loss.grad_fn
    assert root is not None, "the loss has no gradient"
    heap: list[tuple[int, int, Any]] = []
    pending: dict[int, list[Any]] = {}
    with torch.no_grad():
        _send(heap, pending, root, loss.output_nr, torch.ones_like(loss))
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
                if target is not None and gradient is not None:
                    _send(heap, pending, target, place, gradient)
            del edges, results


def _send(heap: list[Any], pending: dict[int, list[Any]], node: Any, place: int, gradient: torch.Tensor) -> None:
    """Add a gradient to what waits for a node; at a leaf, to the leaf's own."""
    wanted = node._input_metadata[place]
    if gradient.shape != wanted.shape:
        gradient = gradient.sum_to_size(wanted.shape)
    if gradient.dtype != wanted.dtype:
        gradient = gradient.to(wanted.dtype)
    if hasattr(node, "variable"):
        leaf = node.variable
        if leaf.grad is None:
            leaf.grad = gradient
        else:
            leaf.grad += gradient
        return
    number = node._sequence_nr()
    if number not in pending:
        pending[number] = [None] * len(node._input_metadata)
        heapq.heappush(heap, (-number, number, node))
    waiting = pending[number]
    waiting[place] = gradient if waiting[place] is None else waiting[place] + gradient


def _materialized(node: Any, gradients: list[Any]) -> list[Any]:
    if not getattr(node, "materialize_grads", True):
        return gradients
    filled = []
    for gradient, wanted in zip(gradients, node._input_metadata, strict=True):
        if gradient is None and wanted.dtype.is_floating_point:
            gradient = torch.zeros(wanted.shape, dtype=wanted.dtype, device=wanted.device)
        filled.append(gradient)
    return filled
