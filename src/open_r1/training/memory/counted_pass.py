"""What a training pass holds in a model's own class, counted on tensors that have shapes and no memory.

For classes that `activations.py` has no formula for. They train by TRL's rows, a prompt in front of every completion;
the whole class runs forward and backward in that shape, with every layer, which takes some seconds. Features of images
stand at the beginning of a row in place of where their tokens are. tests/training/test_counted_pass.py holds the sums
against the same rows on fake CUDA tensors.
"""

import json
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.initialization import no_init_weights

from open_r1.modeling.prompt_batch import inner_model
from open_r1.training.memory.activations import Batch, Numbers, Pass, Trained, copied_bytes, head_bytes
from open_r1.training.memory.model_size import ImageShape, ModelSize, NoSize
from open_r1.training.setup.trainable_parts import freeze_vision_tower, lora_targets


@dataclass(frozen=True)
class PassBytes:
    """Bytes beside weights and their gradients."""

    after_forward: int
    forward_peak: int
    backward_peak: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that exist."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        if storage not in self._storages:
            size = storage.nbytes()
            self._storages.add(storage)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.live -= size


def counted_pass(size: ModelSize, batch: Batch, numbers: Numbers, trained: Trained, checkpointing: bool) -> Pass:
    """The largest that a training pass holds, as `activations.training_pass`.

    Raises:
        NoSize: the class does not compute image features and text apart, or needs values to compute.
    """
    try:
        counts = _count_bytes(size.config, size.image, batch, numbers, trained, checkpointing)
    except Exception as error:  # a class that takes no such arguments raises anything
        reason = " ".join(str(error).split())[:200]
        raise NoSize(f"a pass of a {size.family} cannot be counted: {type(error).__name__}: {reason}") from error
    copies = copied_bytes(size, batch, numbers)
    # torch holds the gradient of a head that is the embeddings' table until theirs has come, which is as large
    waits = size.language.table * numbers.weight if size.language.tied and not trained.adapters else 0
    # TRL takes the scored places of a row in two steps, whose gradients are as large as all rows
    places = 2 * batch.tokens * numbers.stream * size.language.width
    moments = [
        Pass(counts.forward_peak - copies, copies, 0),
        Pass(counts.after_forward - copies, copies, head_bytes(size, batch, numbers, trained) + places),
        Pass(counts.backward_peak - copies, copies, waits),
    ]
    return max(moments, key=lambda moment: moment.total)


@lru_cache
def _count_bytes(
    config: str, image: ImageShape | None, batch: Batch, numbers: Numbers, trained: Trained, checkpointing: bool
) -> PassBytes:
    model = _model(config, numbers, trained, checkpointing)
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as bytes_of:
        model.to_empty(device="cpu")
        model.tie_weights()
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        before = bytes_of.peak = bytes_of.live
        with torch.autocast("cpu", torch.bfloat16) if numbers is Numbers.AUTOCAST else nullcontext():
            states = _states(model, image, batch)
        after_forward, forward_peak = bytes_of.live - before, bytes_of.peak - before
        total = states.sum()
        del states
        bytes_of.peak = bytes_of.live
        total.backward()
        return PassBytes(after_forward, forward_peak, bytes_of.peak - before)


def _model(config: str, numbers: Numbers, trained: Trained, checkpointing: bool) -> Any:
    settings = transformers.AutoConfig.for_model(**json.loads(config))
    dtype = torch.bfloat16 if numbers is Numbers.HALF else torch.float32
    # on "meta" first, since PEFT moves what it adds to where the layers are, and fake weights cannot be moved
    with torch.device("meta"), no_init_weights():
        model: Any = transformers.AutoModelForImageTextToText.from_config(
            settings, dtype=dtype, attn_implementation="sdpa"
        )
    if trained.adapters:
        targets = lora_targets(model, "both" if trained.vision else "language")
        adapters = LoraConfig(target_modules=targets, lora_dropout=0.05 if trained.dropout else 0.0)
        model = get_peft_model(model, adapters, low_cpu_mem_usage=True)
    elif not trained.vision:
        freeze_vision_tower(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and module.p:
            forward: Any = partial(_fused_dropout, share=module.p)
            module.forward = forward
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        if trained.adapters:
            model.enable_input_require_grads()
    return model.train()


def _fused_dropout(numbers: torch.Tensor, share: float) -> torch.Tensor:
    """As on a GPU, where it keeps a byte for each number; on a CPU it keeps a number."""
    return torch.native_dropout(numbers, share, True)[0]


def _states(model: Any, image: ImageShape | None, batch: Batch) -> torch.Tensor:
    """(rows, tokens, width) what the language model gives."""
    model = inner_model(model)
    embeddings = model.get_input_embeddings()(torch.zeros(batch.rows, batch.row, dtype=torch.long))
    if image is not None and batch.image_tokens:
        tiles = batch.seen // image.tokens * image.pixels[0]
        features: Any = model.get_image_features(pixel_values=torch.zeros(tiles, *image.pixels[1:]))
        features = getattr(features, "pooler_output", features)
        features = torch.cat([part.flatten(0, -2) for part in features])
        features = features.view(batch.rows, -1, features.size(-1)).to(embeddings.dtype)
        embeddings = torch.cat([features, embeddings[:, features.size(1) :]], 1)
    mask = torch.ones(batch.rows, batch.row, dtype=torch.long)
    decoder = model.language_model
    return decoder(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state
