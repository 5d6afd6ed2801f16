"""The transformers backend: completions of prompts, and the tokens that end them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from open_r1.checkpoints.families import forbidden_token_ids
from open_r1.evaluation.answering.backends.decoder import Decoder, Prompts
from open_r1.evaluation.answering.backends.letter_probs import LetterRecorder
from open_r1.evaluation.answering.backends.sampling import draw, uniforms
from open_r1.evaluation.answering.encoder import Encoded
from open_r1.evaluation.answering.settings import Sampling
from open_r1.modeling.decoding.loop import Pick
from open_r1.modeling.prompt_batch import completion_lengths, upload


@dataclass(frozen=True)
class Completion:
    """What the model wrote: the text without special tokens, and the number of tokens with the end token."""

    text: str
    tokens: int
    cut_off: bool = False  # whether the token limit ended it
    letters: Mapping[int, Mapping[str, float]] | None = None
    """Where the text writes a letter, by its index: the probability of each letter there. None if not recorded."""


class Generator:
    """A model that answers batches of prompts, greedily or by drawing samples.

    Greedy means the most likely token: the repetition penalty (1.05 in the published Qwen2.5-VL) and the sampling
    settings of the checkpoint's generation_config.json are ignored. Tokens that stand for images are never generated.

    Args:
        model: in evaluation mode, on the device where it is to run.
        tokenizer: has the padding token and turns tokens into text.
        max_new_tokens: longest completion in tokens.
        sampling: how many completions of a question are drawn, at which temperature.
        letter_probs: whether completions come with the probabilities of letters; decoding must be greedy.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        letter_probs: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.sampling = sampling or Sampling()
        self.forbidden = forbidden_token_ids(model.config)
        self.end_tokens = end_tokens(model.generation_config, tokenizer)
        self._decode = Decoder(model, self.end_tokens, tokenizer.pad_token_id, max_new_tokens)
        self.letters = LetterRecorder(tokenizer, model.device) if letter_probs else None

    def __call__(self, encoded: Encoded) -> list[list[Completion]]:
        """The completions of each prompt, in order."""
        tokens = self.tokens(encoded.prompts, [row["id"] for row in encoded.rows])
        lengths = completion_lengths(tokens, self.end_tokens).tolist()
        rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        assert not {token for row in rows for token in row}.intersection(self.forbidden)
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        ends = set(self.end_tokens)
        letters = [None] * len(rows)
        if self.letters is not None:
            letters = list(map(self.letters.written, rows, self.letters.values.cpu()))
        completions = [
            Completion(text, len(row), row[-1] not in ends, by_place)
            for text, row, by_place in zip(texts, rows, letters, strict=True)
        ]
        count = self.sampling.count
        return [completions[start : start + count] for start in range(0, len(completions), count)]

    def tokens(self, prompts: Prompts, names: Sequence[str]) -> torch.Tensor:
        """(B * samples, C) generated token ids, padded after the end token; `names` are the questions' ids."""
        pick = self._picker(names)
        if self.letters is not None:
            pick = self.letters.recording(pick, len(names), self.max_new_tokens)
        return self._decode(prompts, pick, self.sampling.count)

    def _picker(self, names: Sequence[str]) -> Pick:
        forbidden = upload(torch.tensor(self.forbidden, dtype=torch.long), self.model.device)

        def greedy(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
            return logits.index_fill(1, forbidden, -torch.inf).argmax(-1)

        if self.sampling.is_greedy:
            return greedy
        numbers = uniforms(self.sampling, names, self.max_new_tokens).to(self.model.device)

        def sample(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
            logits = logits.index_fill(1, forbidden, -torch.inf)
            return draw(logits, self.sampling.temperature, numbers[:, step].index_select(0, rows))

        return sample


def end_tokens(config: GenerationConfig | None, tokenizer: Any) -> list[int]:
    """Ids that end a completion: the checkpoint's and the tokenizer's."""
    eos = config.eos_token_id if config is not None else None
    eos_ids = eos if isinstance(eos, list) else [eos]
    return sorted({token for token in [*eos_ids, tokenizer.eos_token_id] if token is not None})
