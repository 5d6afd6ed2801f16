"""Decoding for questions that share images: what is common to several prompts is computed once.

In these data several questions ask about one image, and a prompt begins with it. So the vision tower and the
language model's pass over "system turn, image" run once per image, its cache is handed to every question about
it, and only the rest is computed per question; several samples of one question share the whole prompt. A row that has
ended leaves the batch. transformers' own `generate` does none of this; its tokens are the same, and a test says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from open_r1.checkpoints.families import windowed_layers
from open_r1.modeling.preallocated_cache import preallocated_cache
from open_r1.modeling.prompt_batch import PromptBatch, inner_model, prompt_positions

Pick = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""((N, V) logits, (N,) which rows they are, step) -> (N,) tokens."""


@dataclass(frozen=True)
class Prompts:
    """B tokenized prompts over U different images, each of which is there once."""

    tokens: list[list[int]]
    """Ids of each prompt, with a placeholder for every token of its image."""
    image_of: list[int]
    """For each prompt the index of its image, -1 for none."""
    image_token: int = -1
    """The placeholder's id; -1 where there are no images."""
    pixel_values: torch.Tensor | None = None
    """(patches, features) of all images, one after the other."""
    grids: torch.Tensor | None = None
    """(U, 3) time, height and width of each image in patches."""


def pad(rows: Sequence[Sequence[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P) token ids with `filler` after the shorter rows, and (B, P) 1 where a token is real."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), filler), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    return ids, mask


@dataclass(frozen=True)
class _Laid:
    """All prompts side by side, their first tokens in column 0: what `_run` cuts its pieces from."""

    ids: torch.Tensor  # (B, P)
    positions: torch.Tensor  # (3, B, P), or (B, P) for text models
    following: torch.Tensor  # (3, B, 1) or (B, 1): the position after each prompt


@dataclass(frozen=True)
class _Piece:
    """Tokens `start` to `stop` of one prompt."""

    row: int
    start: int
    stop: int


@dataclass
class _State:
    """The N rows that are still being written."""

    cache: DynamicCache
    logits: torch.Tensor  # (N, V) for the next token
    positions: torch.Tensor  # (..., N, 1) of the next token
    mask: torch.Tensor  # (N, S) 1 where the cache holds a real token, with room for all tokens to come
    used: int  # columns of the cache


class Decoder:
    """Continues prompts until an end token.

    Args:
        model: in evaluation mode, on the device where it is to run.
        end_tokens: ids that end a completion.
        pad_token: id to fill up with.
        max_new_tokens: longest completion in tokens.
    """

    def __init__(self, model: Any, end_tokens: Sequence[int], pad_token: int, max_new_tokens: int) -> None:
        self.model, self.pad_token, self.max_new_tokens = model, pad_token, max_new_tokens
        self.end_tokens = torch.tensor(list(end_tokens), device=model.device)
        _embed_patches_by_matrix(model)

    @torch.inference_mode()
    def __call__(self, prompts: Prompts, pick: Pick, samples: int = 1) -> torch.Tensor:
        """(B * samples, C) tokens, the samples of a prompt next to each other, padded after the end token."""
        state = self._prefill(prompts)
        if samples > 1:
            _repeat(state, samples)
        count, device = len(prompts.tokens) * samples, self.model.device
        written = torch.full((count, self.max_new_tokens), self.pad_token, device=device)
        rows, step = torch.arange(count, device=device), 0
        while True:
            chosen = pick(state.logits.float(), rows, step)
            written[rows, step] = chosen
            step += 1
            going = ~torch.isin(chosen, self.end_tokens)
            if step == self.max_new_tokens or not bool(going.any()):
                return written[:, :step]
            if not bool(going.all()):
                rows, chosen = rows[going], chosen[going]
                _keep(state, going)
            self._advance(state, chosen)

    def _prefill(self, prompts: Prompts) -> _State:
        if windowed_layers(self.model.config):
            return self._prefill_whole(prompts)
        heads, head_of = _heads(prompts)
        laid = self._lay(prompts, heads, head_of)
        shared = torch.zeros(len(head_of), 0, dtype=torch.long, device=self.model.device)
        starts, room = [0] * len(head_of), self.max_new_tokens
        cache = preallocated_cache(self.model.config, room)
        if len(heads) < len(head_of):
            room += laid.ids.size(1) - min(head.stop for head in heads)
            cache = preallocated_cache(self.model.config, room)
            _, mask = self._run(laid, heads, shared[: len(heads)], cache, prompts)
            order = torch.tensor(head_of, device=self.model.device)
            cache.batch_select_indices(order)
            shared = mask[order]
            starts = [heads[index].stop for index in head_of]
        rest = [_Piece(b, start, len(prompts.tokens[b])) for b, start in enumerate(starts)]
        hidden, mask = self._run(laid, rest, shared, cache, prompts)
        mask = torch.cat([mask, mask.new_ones(len(mask), self.max_new_tokens)], 1)
        used = mask.size(1) - self.max_new_tokens
        return _State(cache, self.model.lm_head(hidden), laid.following.to(self.model.device), mask, used)

    def _prefill_whole(self, prompts: Prompts) -> _State:
        """Every prompt on its own, padded on the left.

        A layer with a window counts columns, so no padding may stand between a row's tokens, nor may its cache, which
        forgets what the window has left behind, be cut where prompts part.
        """
        width, device = max(map(len, prompts.tokens)), self.model.device
        ids = torch.tensor([[self.pad_token] * (width - len(row)) + row for row in prompts.tokens], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts.tokens], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        hidden = inner_model(self.model)(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )[0]
        mask = torch.cat([mask, mask.new_ones(len(mask), self.max_new_tokens)], 1)
        return _State(cache, self.model.lm_head(hidden[:, -1]), positions[:, -1:] + 1, mask, width)

    def _lay(self, prompts: Prompts, heads: list[_Piece], head_of: list[int]) -> _Laid:
        """Positions as the model counts them for the heads; the text after a head goes on from where it ends."""
        tokens, mask = pad([prompts.tokens[head.row][: head.stop] for head in heads], self.pad_token)
        vision = {}
        if prompts.grids is not None:
            vision = {"image_grid_thw": prompts.grids, "mm_token_type_ids": (tokens == prompts.image_token).long()}
        counts = [int(prompts.image_of[head.row] >= 0) for head in heads]
        known, offset = prompt_positions(self.model, PromptBatch(tokens, mask, counts, vision))
        ids, real = pad(prompts.tokens, self.pad_token)
        places = torch.arange(ids.size(1)).expand(ids.shape)
        positions = places if offset is None else places + offset[head_of]
        positions = positions.expand(*known.shape[:-2], -1, -1).clone()
        width = min(known.size(-1), ids.size(1))
        in_head = places[:, :width] < mask.sum(1)[head_of, None]
        positions[..., :width] = torch.where(in_head, known[..., head_of, :width], positions[..., :width])
        lengths = real.sum(1, keepdim=True)
        following = positions.gather(-1, (lengths - 1).expand(*positions.shape[:-1], 1)) + 1  # a prompt ends with text
        return _Laid(ids, positions, following)

    def _run(
        self, laid: _Laid, pieces: list[_Piece], before: torch.Tensor, cache: DynamicCache, prompts: Prompts
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute one piece of each row after what the cache holds.

        A piece that begins its prompt holds that prompt's image. Padding stands on the right: no real token comes
        after it, so where the cache is empty causal attention needs no mask, which is the fast case everywhere.

        Returns:
            The hidden state of each piece's last token, (B, hidden), and the mask of what the cache then holds.
        """
        device = self.model.device
        rows = [piece.row for piece in pieces]
        columns, real = pad([range(piece.start, piece.stop) for piece in pieces], 0)
        ids = laid.ids[rows].gather(1, columns).masked_fill(real == 0, self.pad_token)
        positions = laid.positions[..., rows, :]
        positions = positions.gather(-1, columns.expand(*positions.shape[:-1], -1))
        mask = torch.cat([before, real.to(device)], 1)
        images = [prompts.image_of[piece.row] for piece in pieces if piece.start == 0]
        shown = {}
        if prompts.pixel_values is not None and prompts.grids is not None and images:
            assert [image for image in images if image >= 0] == list(range(len(prompts.grids)))
            shown = {"pixel_values": prompts.pixel_values.to(device), "image_grid_thw": prompts.grids.to(device)}
        hidden = inner_model(self.model)(
            input_ids=ids.to(device),
            attention_mask=mask if before.size(1) else None,
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            **shown,
        )[0]
        return hidden[torch.arange(len(pieces), device=device), real.sum(1).to(device) - 1], mask

    def _advance(self, state: _State, chosen: torch.Tensor) -> None:
        """Give the model one more token of each row."""
        state.used += 1
        hidden = inner_model(self.model)(
            input_ids=chosen[:, None],
            attention_mask=state.mask[:, : state.used],
            position_ids=state.positions,
            past_key_values=state.cache,
            use_cache=True,
        )[0]
        state.logits = self.model.lm_head(hidden[:, -1])
        state.positions = state.positions + 1


def _heads(prompts: Prompts) -> tuple[list[_Piece], list[int]]:
    """The beginnings that prompts have in common, and for each prompt which of them is its own.

    With an image: everything up to its last token. Without: what all prompts without one begin with.
    """
    plain = [tokens for tokens, image in zip(prompts.tokens, prompts.image_of, strict=True) if image < 0]
    common = _common(min(plain), max(plain)) if plain else 0  # what these two share, all between them share
    heads: list[_Piece] = []
    known: dict[int, int] = {}
    head_of = []
    for row, (tokens, image) in enumerate(zip(prompts.tokens, prompts.image_of, strict=True)):
        if image not in known:
            length = common if image < 0 else len(tokens) - tokens[::-1].index(prompts.image_token)
            known[image] = len(heads)
            heads.append(_Piece(row, 0, min(length, len(tokens) - 1)))
        head_of.append(known[image])
    return heads, head_of


def _embed_patches_by_matrix(model: Any) -> None:
    """Let the vision tower embed patches with one matrix product.

    Its convolution has a stride as large as its kernel and sees one patch at a time, which is the same sum; but on a
    CPU it takes ten times as long (torch 2.15).
    """
    visual = getattr(inner_model(model), "visual", None)
    if visual is None:
        return
    proj = visual.patch_embed.proj
    assert proj.bias is None
    assert proj.kernel_size == proj.stride

    def embed(patches: torch.Tensor) -> torch.Tensor:
        return patches.to(proj.weight.dtype) @ proj.weight.flatten(1).T

    visual.patch_embed.forward = embed


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two prompts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _repeat(state: _State, times: int) -> None:
    state.cache.batch_repeat_interleave(times)
    state.logits = state.logits.repeat_interleave(times, 0)
    state.mask = state.mask.repeat_interleave(times, 0)
    state.positions = state.positions.repeat_interleave(times, -2)


def _keep(state: _State, going: torch.Tensor) -> None:
    """Drop the rows that have ended."""
    state.cache.batch_select_indices(going)
    state.mask = state.mask[going]
    state.positions = state.positions[..., going, :]
