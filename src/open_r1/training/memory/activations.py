"""Bytes that one training pass holds for its backward pass, counted from a model's shape.

Each number below is what torch's autograd saves for one token (or patch) in one layer of Qwen2-VL, Qwen2.5-VL and Qwen2
with the operations of `modeling/lean_layers.py` and a fused attention kernel. The sums are held against the same passes
on fake CUDA tensors in tests/training/test_memory_on_fake_cuda.py.
"""

from dataclasses import dataclass
from enum import StrEnum

from open_r1.training.memory.model_size import LanguageSize, ModelSize, VisionSize

TILE = 32768
"""Rows of the vocabulary that TRL's fused head projects at a time (trl/kernels/chunked_logprob.py)."""
TILE_TOKENS = 4096
"""Tokens of such a tile."""


class Numbers(StrEnum):
    """The number formats of a pass."""

    AUTOCAST = "float32 weights, bfloat16 products"
    HALF = "bfloat16 weights and products"
    WHOLE = "float32 weights and products"

    @property
    def product(self) -> int:
        """Bytes of a number that a matrix product gives."""
        return 4 if self is Numbers.WHOLE else 2

    @property
    def weight(self) -> int:
        """Bytes of a weight and of its gradient."""
        return 2 if self is Numbers.HALF else 4

    @property
    def stream(self) -> int:
        """Bytes of a number of the stream between the language model's layers."""
        return 2 if self is Numbers.HALF else 4


@dataclass(frozen=True)
class Batch:
    """The longest micro-batch that a run can meet."""

    prompts: int
    prompt_tokens: int
    """Of each prompt, its image's included."""
    image_tokens: int
    """Of each prompt; 0 for text."""
    group: int
    completion_tokens: int
    shares_prefix: bool = True
    """Whether a prompt is computed once for its completions; else a row per completion."""
    token_budget: int | None = None
    """`--tokens_per_micro_batch`."""

    @property
    def prompts_per_pass(self) -> int:
        """Prompts that go through the model at once."""
        if not self.shares_prefix or not self.token_budget:
            return self.prompts
        return max(1, min(self.prompts, self.token_budget // self.row))

    @property
    def row(self) -> int:
        """Tokens of the longest row, which a mask is as wide as."""
        if self.shares_prefix:
            return self.prompt_tokens - 1 + self.group * self.completion_tokens
        return self.prompt_tokens + self.completion_tokens

    @property
    def rows(self) -> int:
        """Rows of one pass."""
        return self.prompts_per_pass * (1 if self.shares_prefix else self.group)

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return self.rows * self.row

    @property
    def scored(self) -> int:
        """Completion tokens of one pass."""
        return self.prompts_per_pass * self.group * self.completion_tokens

    @property
    def seen(self) -> int:
        """Image tokens that the vision tower makes in one pass."""
        return self.rows * self.image_tokens


@dataclass(frozen=True)
class Trained:
    """Which weights a pass makes gradients for."""

    adapters: bool = False
    """LoRA's weights alone."""
    vision: bool = True
    """Anything of the vision tower, or adapters on it."""
    dropout: bool = False
    """Of the adapters' inputs."""


@dataclass(frozen=True)
class Pass:
    """What a pass holds when it holds most, in bytes."""

    activations: int
    """Saved for the backward pass."""
    rounded: int
    """bfloat16 copies of float32 matrices, which products are made from (`modeling/products.py`)."""
    head: int
    """Gradient of the head and what is made with it, when the backward pass begins."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.rounded + self.head


def training_pass(
    size: ModelSize, batch: Batch, numbers: Numbers, trained: Trained, checkpointing: bool, masked: bool
) -> Pass:
    """The largest that a training pass of a model holds.

    Args:
        size: the model.
        batch: what goes through it.
        numbers: formats of weights and products.
        trained: whose gradients are made.
        checkpointing: whether layers keep their inputs alone and are computed again.
        masked: whether packed rows attend under one mask, not segment by segment.
    """
    language, vision = size.language, size.vision
    if not (isinstance(vision, VisionSize) and trained.vision and batch.seen):
        vision = None
    patches = 0 if vision is None else batch.seen * vision.patches_per_token
    mask = batch.rows * batch.row**2 * numbers.product if masked else 0
    layer = batch.tokens * language_bytes(language, numbers, trained)
    layer += attention_bytes(language, batch, numbers, masked)
    block = 0 if vision is None else patches * vision_bytes(vision, numbers, trained)
    # the last norm's input and what it gives, and the mask, which all layers share
    ends = batch.tokens * language.width * (4 if numbers is Numbers.HALF else 8) + mask
    if vision is not None:
        ends += patches * vision_end_bytes(vision, numbers)
    copies = copied_bytes(size, batch, numbers)
    head = head_bytes(size, batch, numbers, trained)
    # torch holds the gradient of a head that is the embeddings' table until theirs has come, which is as large
    waits = language.table * numbers.weight if language.tied and not trained.adapters else 0
    last_layer = waits + gradients_in_layer(language, batch, numbers, trained)
    end = Pass(0, copies, 2 * waits)
    if not checkpointing:
        layers = language.layers * layer + (0 if vision is None else vision.layers * block)
        moments = [Pass(layers + ends, copies, head), Pass(layers, copies, last_layer), end]
        return max(moments, key=lambda held: held.total)
    inputs = batch.tokens * numbers.stream * language.width * language.layers
    if vision is not None:
        inputs += patches * numbers.product * vision.width * vision.layers
    # the forward pass makes in each layer products that it does not keep; later one layer at a time is computed again
    passing = batch.tokens * numbers.product * language.mlp * (5 if trained.adapters else 3)
    moments = [
        Pass(inputs + ends + passing, copies, 0),
        Pass(inputs + ends, copies, head),
        Pass(inputs + ends + max(layer, block), copies, last_layer),
        end,
    ]
    return max(moments, key=lambda held: held.total)


def copied_bytes(size: ModelSize, batch: Batch, numbers: Numbers) -> int:
    """Of the copies that products are made from: those of float32 matrices, and those with a width of more zeros."""
    vision = size.vision if batch.seen else None
    if numbers is Numbers.AUTOCAST:
        return 2 * (size.language.matrices + (0 if vision is None else vision.block_matrices + vision.other_matrices))
    if numbers is Numbers.WHOLE or not isinstance(vision, VisionSize) or vision.mlp % 8 == 0:
        return 0
    return 2 * vision.layers * (3 if vision.gated else 2) * vision.width * vision.mlp


def language_bytes(language: LanguageSize, numbers: Numbers, trained: Trained) -> int:
    """Saved per token in one decoder layer, without attention.

    Each of two norms saves the stream, and the products after it save what it gives, which is rounded once for all of
    them. The MLP saves gate, up, the activation and their product. A frozen norm and a frozen matrix save no input;
    LoRA's matrices save theirs, and dropout a byte of mask for each number.
    """
    width, inner = language.width, numbers.product * 4 * language.mlp
    if trained.adapters:
        inputs = {Numbers.AUTOCAST: 20, Numbers.HALF: 20, Numbers.WHOLE: 32}[numbers] * width
        return inner + inputs + (6 * width + language.mlp if trained.dropout else 0)
    return inner + {Numbers.AUTOCAST: 12, Numbers.HALF: 8, Numbers.WHOLE: 16}[numbers] * width


def attention_bytes(language: LanguageSize, batch: Batch, numbers: Numbers, masked: bool) -> int:
    """Saved by the attention of one decoder layer.

    Under one mask: queries, keys and values for every head, and the result. By segment in half precision:
    queries, keys, values, the result and a float32 sum for every head. By segment in float32, which has no fused
    kernel for grouped heads: the weights of the prefix over itself and of each segment over prefix and segment, and
    keys and values for every head as often as they are looked at.
    """
    product, rows, tokens = numbers.product, batch.rows, batch.tokens
    if masked or not batch.shares_prefix:
        return product * 4 * language.queries * tokens
    if numbers is not Numbers.WHOLE:
        return tokens * (2 * product * (language.queries + language.keys) + 4 * language.heads)
    prefix, segments = batch.prompt_tokens - 1, batch.group * batch.completion_tokens
    visible = batch.prompt_tokens - 1 + batch.completion_tokens
    weights = language.heads * (prefix**2 + segments * visible)
    states = 2 * language.queries * (batch.row + prefix + batch.group * visible)
    return product * rows * (weights + states)


def vision_bytes(vision: VisionSize, numbers: Numbers, trained: Trained) -> int:
    """Saved per patch in one block of the tower, whose stream has the format of the products.

    Queries and keys are saved twice: as one matrix gives them, beside the values, and turned by their positions.
    """
    inner = numbers.product * (4 if vision.gated else 3) * vision.mlp
    stream = {Numbers.AUTOCAST: 24, Numbers.HALF: 20, Numbers.WHOLE: 40}[numbers] * vision.width
    dropped = (4 * vision.width + vision.mlp) if trained.adapters and trained.dropout else 0
    return inner + stream + dropped


def vision_end_bytes(vision: VisionSize, numbers: Numbers) -> int:
    """Saved per patch before the first block and in the merger."""
    return numbers.product * (vision.patch + 6 * vision.width)


def gradients_in_layer(language: LanguageSize, batch: Batch, numbers: Numbers, trained: Trained) -> int:
    """What the backward pass of a decoder layer holds beside what is saved.

    Gradients of the MLP's products and of the stream; those of adapters' inputs are float32.
    """
    width, mlp = language.width, language.mlp
    return batch.tokens * (11 * mlp + 12 * width if trained.adapters else numbers.product * mlp + 4 * width)


def head_bytes(size: ModelSize, batch: Batch, numbers: Numbers, trained: Trained) -> int:
    """Held when the backward pass begins.

    The gradient of the head in float32, its rounding where weights are bfloat16, a tile of products, two tiles of the
    rounded head, and the gradient of its input. Where the head is frozen, the gradients within the last layer may be
    more.
    """
    width, table = size.language.width, size.language.table
    gradient = 0 if trained.adapters else (6 if numbers is Numbers.HALF else 4) * table
    tiles = 2 * TILE * width * 2 if numbers is Numbers.AUTOCAST else 0
    return gradient + tiles + min(batch.scored, TILE_TOKENS) * TILE * numbers.product + 8 * batch.scored * width
