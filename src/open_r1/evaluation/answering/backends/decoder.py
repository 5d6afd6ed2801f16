"""Decoding for questions that share images: the common prefix of several prompts is computed once.

In these data several questions ask about the same images, and a prompt begins with them as a rule. So the vision
tower and the language model's pass over "system turn, images" run once for them, all their questions reuse the cache,
and only the text after them is computed per question. Several samples of one question share the whole prompt.
`generate` of transformers does none of this; a test checks that the tokens are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from open_r1.common.errors import UserError
from open_r1.modeling.decoding.loop import DecodingLoop, Pick
from open_r1.modeling.decoding.prefill import prefill
from open_r1.modeling.decoding.steps import Prefilled
from open_r1.modeling.family_probe import decoding_support, windowed_layers
from open_r1.modeling.lean_layers import adapt_layers
from open_r1.modeling.prompt_batch import PromptBatch, inner_model, prompt_positions
from open_r1.modeling.vision_attention import adapt_vision


@dataclass(frozen=True)
class Prompts:
    """B tokenized prompts about U different images; each image is stored once."""

    tokens: list[list[int]]
    """Token ids of each prompt, with a placeholder for every token of its images."""
    images_of: list[tuple[int, ...]]
    """For each prompt the indices of its images, in the order of their placeholders."""
    image_token: int = -1
    """The id of the placeholder; -1 without images."""
    pixel_values: torch.Tensor | None = None
    """(patches, features) of all images, one after the other."""
    grids: torch.Tensor | None = None
    """(U, 3) time, height and width of each image in patches."""
    processed: dict[str, torch.Tensor] = field(default_factory=dict)
    """Model inputs beside the ids where images have no grids: each prompt's images, one after the other, and numbers
    for each token, (B, P) padded on the left."""

    def vision(self, images: list[int]) -> dict[str, torch.Tensor]:
        """Model inputs of images by index, one after the other; {} for none."""
        if self.pixel_values is None or self.grids is None or not images:
            return {}
        if images == list(range(len(self.grids))):
            return {"pixel_values": self.pixel_values, "image_grid_thw": self.grids}
        pieces = self.pixel_values.split(self.grids.prod(-1).tolist())
        return {"pixel_values": torch.cat([pieces[image] for image in images]), "image_grid_thw": self.grids[images]}


def pad(rows: Sequence[Sequence[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P) token ids with `filler` after the shorter rows, and (B, P) 1 where a token is real."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), filler), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    return ids, mask


@dataclass(frozen=True)
class _Layout:
    """All prompts, padded on the right; `_run` reads its spans from here."""

    ids: torch.Tensor  # (B, P)
    positions: torch.Tensor  # (3, B, P), or (B, P) for text models
    following: torch.Tensor  # (3, B, 1) or (B, 1): the position after each prompt


@dataclass(frozen=True)
class _Span:
    """Tokens `start` to `stop` of one prompt."""

    row: int
    start: int
    stop: int


class Decoder:
    """Continues prompts until an end token.

    Args:
        model: in evaluation mode, on the device where it is to run.
        end_tokens: ids that end a completion.
        pad_token: id for padding.
        max_new_tokens: longest completion in tokens.
    """

    def __init__(self, model: Any, end_tokens: Sequence[int], pad_token: int, max_new_tokens: int) -> None:
        able = decoding_support(model)
        if able.refusal is not None:
            raise UserError(
                f"a {model.config.model_type} cannot be evaluated by this backend: {able.refusal}. --backend vllm "
                "evaluates it if vLLM serves it"
            )
        self.model, self.pad_token, self.max_new_tokens = model, pad_token, max_new_tokens
        self._separately = windowed_layers(model.config) > 0 or not able.has_plain_head
        self._continue = DecodingLoop(model, end_tokens, pad_token, windowed=windowed_layers(model.config) > 0)
        adapt_vision(inner_model(model))
        adapt_layers(model)

    @torch.inference_mode()
    def __call__(self, prompts: Prompts, pick: Pick, samples: int = 1) -> torch.Tensor:
        """(B * samples, C) tokens, the samples of a prompt next to each other, padded after the end token."""
        return self._continue(self._prefill(prompts, samples), pick, self.max_new_tokens)

    def _prefill(self, prompts: Prompts, samples: int) -> Prefilled:
        order = torch.arange(len(prompts.tokens), device=self.model.device).repeat_interleave(samples)
        if self._separately or prompts.processed:
            return self._prefill_separately(prompts, order)
        prefixes, prefix_of = _shared_prefixes(prompts)
        layout = self._lay_out(prompts, prefixes, prefix_of)
        prefix_mask = torch.zeros(len(prefix_of), 0, dtype=torch.long, device=self.model.device)
        starts = [0] * len(prefix_of)
        cache = DynamicCache(config=self.model.config)
        if len(prefixes) < len(prefix_of):
            _, mask = self._run(layout, prefixes, prefix_mask[: len(prefixes)], cache, prompts)
            prefix_rows = torch.tensor(prefix_of, device=self.model.device)
            cache.batch_select_indices(prefix_rows)
            prefix_mask = mask[prefix_rows]
            starts = [prefixes[index].stop for index in prefix_of]
        suffixes = [_Span(b, start, len(prompts.tokens[b])) for b, start in enumerate(starts)]
        hidden, mask = self._run(layout, suffixes, prefix_mask, cache, prompts)
        return Prefilled(cache, mask, self.model.lm_head(hidden), layout.following.to(self.model.device), order)

    def _prefill_separately(self, prompts: Prompts, order: torch.Tensor) -> Prefilled:
        """Compute each whole prompt, padded on the left.

        A layer with a window counts columns, so a row must not have padding between its tokens. Its cache drops what
        is outside the window, so it cannot be cut at the end of a shared prefix. Logits that are scaled or capped are
        made by the model itself, of the last column only. Images without grids cannot be told apart within a batch.
        """
        width, device = max(map(len, prompts.tokens)), self.model.device
        ids = torch.tensor([[self.pad_token] * (width - len(row)) + row for row in prompts.tokens], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts.tokens], device=device)
        processed = {name: self._placed(values) for name, values in prompts.processed.items()}
        return prefill(self.model, PromptBatch(ids, mask, [0] * len(ids)), order, **processed)

    def _placed(self, values: torch.Tensor) -> torch.Tensor:
        """Values on the model's device, and numbers of images in its type."""
        return values.to(self.model.device, self.model.dtype if values.is_floating_point() else None)

    def _lay_out(self, prompts: Prompts, prefixes: list[_Span], prefix_of: list[int]) -> _Layout:
        """The model computes the positions of the prefixes; the text after a prefix continues from its end."""
        tokens, mask = pad([prompts.tokens[prefix.row][: prefix.stop] for prefix in prefixes], self.pad_token)
        counts = [len(prompts.images_of[prefix.row]) for prefix in prefixes]
        vision = {}
        if prompts.grids is not None and any(counts):
            grids = prompts.grids[[image for prefix in prefixes for image in prompts.images_of[prefix.row]]]
            vision = {"image_grid_thw": grids, "mm_token_type_ids": (tokens == prompts.image_token).long()}
        prefix_positions, offset = prompt_positions(self.model, PromptBatch(tokens, mask, counts, vision))
        ids, real = pad(prompts.tokens, self.pad_token)
        columns = torch.arange(ids.size(1)).expand(ids.shape)
        positions = columns if offset is None else columns + offset[prefix_of]
        positions = positions.expand(*prefix_positions.shape[:-2], -1, -1).clone()
        width = min(prefix_positions.size(-1), ids.size(1))
        in_prefix = columns[:, :width] < mask.sum(1)[prefix_of, None]
        positions[..., :width] = torch.where(
            in_prefix, prefix_positions[..., prefix_of, :width], positions[..., :width]
        )
        lengths = real.sum(1, keepdim=True)
        following = positions.gather(-1, (lengths - 1).expand(*positions.shape[:-1], 1)) + 1  # a prompt ends with text
        return _Layout(ids, positions, following)

    def _run(
        self, layout: _Layout, spans: list[_Span], cache_mask: torch.Tensor, cache: DynamicCache, prompts: Prompts
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute one span of each row after the tokens in the cache.

        A span that begins its prompt contains the prompt's images. Padding is on the right, so no real token comes
        after it, and with an empty cache causal attention needs no mask, which is the fastest case.

        Returns:
            The hidden state of the last token of each span, (B, hidden), and the mask of the cache afterwards.
        """
        device = self.model.device
        rows = [span.row for span in spans]
        columns, real = pad([range(span.start, span.stop) for span in spans], 0)
        ids = layout.ids[rows].gather(1, columns).masked_fill(real == 0, self.pad_token)
        positions = layout.positions[..., rows, :]
        positions = positions.gather(-1, columns.expand(*positions.shape[:-1], -1))
        mask = torch.cat([cache_mask, real.to(device)], 1)
        vision = prompts.vision([image for span in spans if span.start == 0 for image in prompts.images_of[span.row]])
        if vision:
            vision["pixel_values"] = vision["pixel_values"].to(device)
        hidden = inner_model(self.model)(
            input_ids=ids.to(device),
            attention_mask=mask if cache_mask.size(1) else None,
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            **vision,
        )[0]
        return hidden[torch.arange(len(spans), device=device), real.sum(1).to(device) - 1], mask


def _shared_prefixes(prompts: Prompts) -> tuple[list[_Span], list[int]]:
    """The prefixes that prompts share, and for each prompt the index of its prefix.

    With images: everything up to the last token of the last one; prompts share it if they have the same images and the
    same text before and between them. Without: the common prefix of all prompts without images.
    """
    plain = [tokens for tokens, images in zip(prompts.tokens, prompts.images_of, strict=True) if not images]
    common = _common_length(min(plain), max(plain)) if plain else 0  # all in between share it too
    prefixes: list[_Span] = []
    index_of: dict[tuple[Any, ...], int] = {}
    prefix_of = []
    for row, (tokens, images) in enumerate(zip(prompts.tokens, prompts.images_of, strict=True)):
        length = common if not images else len(tokens) - tokens[::-1].index(prompts.image_token)
        key = (images, *(tokens[:length] if images else ()))
        if key not in index_of:
            index_of[key] = len(prefixes)
            prefixes.append(_Span(row, 0, min(length, len(tokens) - 1)))
        prefix_of.append(index_of[key])
    return prefixes, prefix_of


def _common_length(tokens_a: list[int], tokens_b: list[int]) -> int:
    """The length in tokens of the common prefix of two prompts."""
    pairs = enumerate(zip(tokens_a, tokens_b, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(tokens_a), len(tokens_b)))
