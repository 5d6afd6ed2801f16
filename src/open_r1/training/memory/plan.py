"""What each process of a training run will hold on its GPU, counted before anything is loaded.

Counted, from config.json and the flags: weights, gradients, optimizer, reference, what the processes exchange, and the
longest pass. Assumed: CUDA's own part. A plan says nothing of fragmentation, for which `SPARE` is kept free.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from open_r1.training.memory.activations import Batch, Numbers, Pass, Trained, training_pass
from open_r1.training.memory.model_size import ModelSize

GIB = 2**30
SPARE = 4.0
"""GiB that a plan leaves free, for fragmentation and what is not counted."""
CONTEXT = 0.9
"""GiB that CUDA, cuBLAS and cuDNN take in a process; assumed."""
EXCHANGE = 0.6
"""GiB that NCCL takes where there are several processes; assumed."""
LIVE_WEIGHTS = 10**9
"""Weights that ZeRO-3 keeps gathered at once (stage3_max_live_parameters of DeepSpeed 0.19)."""
BUCKET = 2 * 10**8
"""Gradients that the files of recipes/deepspeed/ exchange at once, two times where that overlaps with computation."""
BY_MASK_UP_TO = 256
"""Completion tokens of a group up to which it attends under one mask (`packed_scoring.LONG_SEGMENTS`)."""

KEPT_CACHE = 2 * GIB
"""Largest memory of sampled keys and values that stays beside a training pass (`decoding.steps.KEPT`)."""
COLUMNS = 256
"""Its columns are a multiple of this (`decoding.steps.COLUMNS`)."""


class Method(StrEnum):
    """What trains."""

    FULL = "full"
    LORA = "LoRA"
    QLORA = "QLoRA"


class Division(StrEnum):
    """What the processes divide among themselves."""

    NOTHING = "nothing divided"
    OPTIMIZER = "optimizer divided"
    ZERO1 = "ZeRO-1"
    ZERO2 = "ZeRO-2"
    ZERO3 = "ZeRO-3"
    FSDP = "FSDP"

    @property
    def weights(self) -> bool:
        """Whether the weights are divided too."""
        return self in (Division.ZERO3, Division.FSDP)


@dataclass(frozen=True)
class Adapters:
    """LoRA's."""

    rank: int = 16
    language: bool = True
    vision: bool = False
    dropout: bool = True

    def weights(self, size: ModelSize) -> int:
        """Weights of all adapters: rank x (inputs + outputs) for each linear layer."""
        count = 0
        if self.language:
            count += size.language.layers * sum(ins + outs for ins, outs in size.language.linears.values())
        if self.vision and size.vision is not None:
            count += size.vision.layers * sum(ins + outs for ins, outs in size.vision.linears.values())
            count += sum(ins + outs for ins, outs in size.vision.merger_linears)
        return self.rank * count


@dataclass(frozen=True)
class Run:
    """As much of a run as decides what it holds."""

    size: ModelSize
    batch: Batch
    processes: int = 1
    method: Method = Method.FULL
    division: Division = Division.NOTHING
    half_products: bool = True
    """`--bf16`."""
    half_weights: bool = False
    """`--dtype bfloat16`."""
    has_reference: bool = True
    """A KL term in full fine-tuning; adapters are switched off instead."""
    rounds_reference: bool = True
    """Whether `shrink_reference` may store it in bfloat16."""
    states: float = 2.0
    """Numbers that the optimizer keeps for each trained weight, in the weight's format."""
    accumulates: bool = True
    """Whether a step has several micro-batches, so that gradients lie there beside activations."""
    sampled_at_once: int = 1
    """Micro-batches whose completions are sampled together; TRL samples those of a whole step."""
    checkpointing: bool = False
    vision_trains: bool = True
    adapters: Adapters = Adapters()
    offloads: bool = False
    """Whether DeepSpeed keeps optimizer and weights in the host's memory."""
    vllm_share: float = 0.0
    """Of the card, by `--vllm_gpu_memory_utilization` beside the training."""

    @property
    def numbers(self) -> Numbers:
        """Formats of weights and products in a pass."""
        if not self.half_products or (self.method is Method.QLORA and not self.half_weights):
            # bitsandbytes multiplies in the format that the model is loaded in, under autocast too
            return Numbers.HALF if self.half_weights else Numbers.WHOLE
        engine_rounds = self.division not in (Division.NOTHING, Division.OPTIMIZER)
        return Numbers.HALF if self.half_weights or engine_rounds else Numbers.AUTOCAST

    @property
    def weight_bytes(self) -> int:
        """Bytes of a stored weight that is not packed."""
        return 2 if self.half_weights or (self.uses_deepspeed and self.half_products) else 4

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed's engine trains."""
        return self.division in (Division.ZERO1, Division.ZERO2, Division.ZERO3)

    @property
    def trained_weights(self) -> int:
        """Weights with a gradient."""
        if self.method is not Method.FULL:
            return self.adapters.weights(self.size)
        return self.size.weights - (0 if self.vision_trains else self.size.vision_weights)


@dataclass(frozen=True)
class Item:
    """A line of a plan."""

    name: str
    bytes: float
    is_certain: bool = True
    """Whether it is held whatever the longest pass turns out to be."""


@dataclass(frozen=True)
class Plan:
    """What a process holds when it holds most."""

    run: Run
    items: tuple[Item, ...]
    moment: str
    """When that is."""

    @property
    def gib(self) -> float:
        """All of it."""
        return sum(item.bytes for item in self.items) / GIB

    @property
    def certain_gib(self) -> float:
        """What is held in any case, before a single token is computed."""
        return sum(item.bytes for item in self.items if item.is_certain) / GIB


def planned(run: Run, card_gib: float = 0.0) -> Plan:
    """The plan of a run; `card_gib` is needed with vLLM alone, which takes a share of the card."""
    fixed = [item for item in _fixed(run, card_gib) if item.bytes]
    moments = {"in the longest training pass": _in_training(run), "while sampling": _in_sampling(run)}
    moment, items = max(moments.items(), key=lambda entry: sum(item.bytes for item in entry[1]))
    return Plan(run, (*fixed, *(item for item in items if item.bytes)), moment)


def _fixed(run: Run, card_gib: float) -> Iterator[Item]:
    """What is there all the time."""
    size, parts = run.size, run.processes if run.division.weights else 1
    offloaded = run.offloads and run.uses_deepspeed
    half = run.weight_bytes == 2
    if run.method is Method.QLORA:
        packed = size.language.matrices
        # a half byte each and a float32 scale for every 64 (bitsandbytes, NF4)
        yield Item("weights, 4 bits", packed * (0.5 + 4 / 64) + (size.weights - packed) * run.weight_bytes)
    else:
        stays = 0 if offloaded and run.division is Division.ZERO3 else 1
        yield Item(f"weights, {_format(run.weight_bytes)}", stays * size.weights * run.weight_bytes / parts)
    trained = run.trained_weights
    trained_bytes = 4 if run.method is not Method.FULL else run.weight_bytes
    if run.method is not Method.FULL:
        yield Item("adapters, float32", trained * 4 / parts)
    shares = 1 if run.division is Division.NOTHING else run.processes
    if run.uses_deepspeed and run.method is Method.FULL:
        yield Item("float32 weights of the optimizer" + _among(shares), 0 if offloaded else trained * 4 / shares)
        yield Item("optimizer" + _among(shares), 0 if offloaded else run.states * trained * 4 / shares)
    else:
        yield Item("optimizer" + _among(shares), run.states * trained * trained_bytes / shares)
    if run.has_reference and run.method is Method.FULL:
        yield _reference(run, half, parts)
    yield Item("CUDA and its libraries (assumed)", (CONTEXT + (EXCHANGE if run.processes > 1 else 0)) * GIB)
    yield Item("vLLM", run.vllm_share * card_gib * GIB)


def _reference(run: Run, half: bool, parts: int) -> Item:
    size = run.size
    if run.division is Division.FSDP:
        return Item("reference, float32" + _among(parts), size.weights * run.weight_bytes / parts)
    if half or not (run.half_products and run.rounds_reference):
        return Item(f"reference, {_format(run.weight_bytes)}", size.weights * run.weight_bytes / parts)
    vectors = size.weights - size.rounded - size.language.table - size.head
    return Item("reference, bfloat16", 2 * (size.weights - vectors) + 4 * vectors)


def _gradients(run: Run) -> Iterator[Item]:
    """Gradients and what they are exchanged in, while a pass runs beside them."""
    trained, alone = run.trained_weights, run.processes == 1
    bytes_each = 4 if run.method is not Method.FULL else run.weight_bytes
    if run.uses_deepspeed:
        shares = 1 if run.division is Division.ZERO1 else run.processes
        yield Item("gradients, float32" + _among(shares), trained * 4 / shares)
        yield Item("gradients that are exchanged", min(trained, BUCKET) * run.weight_bytes * 2)
    elif run.division is Division.FSDP:
        yield Item("gradients, float32" + _among(run.processes), trained * bytes_each / run.processes)
        if run.accumulates:
            yield Item("gradients before they are divided", trained * run.numbers.product)
    elif run.division is Division.OPTIMIZER:
        yield Item("gradients, in DDP's buckets", trained * bytes_each)
    else:
        yield Item("gradients", trained * bytes_each if run.accumulates else 0)
        yield Item("DDP's buckets", 0 if alone else trained * bytes_each)


def _in_training(run: Run) -> list[Item]:
    longest = longest_pass(run)
    items = [
        *_gradients(run),
        *_gathered(run, sampling=False),
        Item("keys and values kept from sampling", _kept_states(run), False),
        Item("bfloat16 copies of the matrices", longest.rounded + _head_copy(run)),
        Item("activations", longest.activations, False),
        Item("gradient of the head", longest.head, False),
    ]
    if run.accumulates or run.division is not Division.NOTHING:
        return items
    # gradients are there when the activations have gone
    late = [Item("gradients", run.trained_weights * (4 if run.method is not Method.FULL else run.weight_bytes))]
    late += [item for item in items if item.is_certain]
    return max(items, late, key=lambda entry: sum(item.bytes for item in entry))


def longest_pass(run: Run) -> Pass:
    """What the longest training pass holds."""
    adapters = run.method is not Method.FULL
    trained = Trained(
        adapters=adapters,
        vision=run.adapters.vision if adapters else run.vision_trains,
        dropout=adapters and run.adapters.dropout,
    )
    batch = run.batch
    if run.size.config:
        from open_r1.training.memory.counted_pass import counted_pass  # imported here: it takes seconds to load torch

        longest = counted_pass(run.size, batch, run.numbers, trained, run.checkpointing)
    else:
        masked = batch.shares_prefix and batch.group * batch.completion_tokens <= BY_MASK_UP_TO
        longest = training_pass(run.size, batch, run.numbers, trained, run.checkpointing, masked)
    if run.method is Method.QLORA:  # 4-bit matrices are unpacked one at a time
        return replace(longest, rounded=run.numbers.product * run.size.language.width * run.size.language.mlp)
    return longest


def _in_sampling(run: Run) -> list[Item]:
    """Keys and values of all completions that are sampled, beside what is gathered or rounded for the pass."""
    keeps_buckets = run.division is Division.OPTIMIZER or (run.division is Division.NOTHING and run.processes > 1)
    trained = run.trained_weights * (4 if run.method is not Method.FULL else run.weight_bytes)
    copies = longest_pass(run).rounded + _head_copy(run)
    return [
        Item("DDP's buckets", trained if keeps_buckets else 0),
        *_gathered(run, sampling=True),
        Item("bfloat16 copies of the matrices", copies),
        Item("keys and values of the completions", _sampled_states(run), False),
    ]


def _sampled_states(run: Run) -> int:
    """Keys and values of all completions that are sampled together."""
    if run.vllm_share:
        return 0
    batch, language = run.batch, run.size.language
    rows = run.sampled_at_once * batch.prompts * batch.group
    columns = -(-(batch.prompt_tokens + batch.completion_tokens) // COLUMNS) * COLUMNS
    return rows * columns * language.layers * language.keys * 2 * run.numbers.product


def _kept_states(run: Run) -> int:
    """What of them stays until the next sampling: all if they are few, and no call waits for another process."""
    states = _sampled_states(run)
    return 0 if run.division.weights or states > KEPT_CACHE else states


def _head_copy(run: Run) -> int:
    """The bfloat16 copy of the head, which sampling makes; a training pass rounds it in tiles."""
    return 0 if run.vllm_share or run.numbers is not Numbers.AUTOCAST else 2 * run.size.language.table


def _gathered(run: Run, sampling: bool) -> Iterator[Item]:
    """Weights that are divided, where they are whole for a while."""
    size, bytes_each = run.size, 2 if run.half_products else 4
    if run.division is Division.ZERO3:
        # TRL gathers all to sample
        count = size.weights if sampling else min(size.weights, LIVE_WEIGHTS + size.language.table)
        yield Item("gathered weights", count * bytes_each)
    elif run.division is Division.FSDP:
        language = size.language
        layer = language.matrices // language.layers
        outside = size.weights - language.matrices - (size.vision.block_matrices if size.vision is not None else 0)
        yield Item("gathered weights", (outside + 2 * layer) * bytes_each)


def _format(weight_bytes: int) -> str:
    return "bfloat16" if weight_bytes == 2 else "float32"


def _among(shares: int) -> str:
    return f", divided among {shares}" if shares > 1 else ""
