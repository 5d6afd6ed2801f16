"""How likely a text goes on with each of some letters: the answers that a model has for a question of choice.

A tokenizer may join a letter with what stands before it: Qwen2's writes `<answer>B` as `<`, `answer`, `>B`. So each
text is tokenized with each letter, and the letters are told apart by the first token in which these differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from open_r1.modeling.prompt_batch import PromptBatch, prompt_positions, upload


@dataclass(frozen=True)
class LetterTokens:
    """A text that is to go on with a letter, as tokens."""

    context: list[int]
    """The tokens that the text has with every letter."""
    deciding: dict[str, int]
    """Letter -> the token after `context` if the text goes on with this letter."""


def letter_tokens(tokenizer: Any, texts: Sequence[str], letters: Sequence[Sequence[str]]) -> list[LetterTokens | None]:
    """Tokenize texts up to where a letter decides.

    Args:
        tokenizer: of the model.
        texts: what stands before the letter, from the beginning of the prompt on.
        letters: those offered in each text.

    Returns:
        One entry per text; None with fewer than two letters, or where two of them have the same token.
    """
    continued = [text + letter for text, offered in zip(texts, letters, strict=True) for letter in offered]
    encoded = iter(tokenizer(continued, add_special_tokens=False)["input_ids"] if continued else ())
    results: list[LetterTokens | None] = []
    for offered in letters:
        by_letter: dict[str, list[int]] = {letter: list(next(encoded)) for letter in offered}
        columns = zip(*by_letter.values(), strict=False)
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        if len(by_letter) < 2 or any(len(tokens) == shared for tokens in by_letter.values()):
            results.append(None)
            continue
        context = next(iter(by_letter.values()))[:shared]
        deciding = {letter: tokens[shared] for letter, tokens in by_letter.items()}
        results.append(LetterTokens(context, deciding) if len(set(deciding.values())) == len(deciding) else None)
    return results


def read_letters(logits: torch.Tensor, deciding: Sequence[dict[str, int]]) -> list[dict[str, float]]:
    """The probability of each letter in each row, as a share of all its letters: they sum to 1.

    Args:
        logits: (B, vocabulary) of the next token.
        deciding: the token of each letter, for each row.
    """
    width = max(map(len, deciding))
    tokens = torch.tensor([[*row.values(), *[0] * (width - len(row))] for row in deciding])
    scores = logits.float().gather(1, upload(tokens, logits.device)).double().cpu()
    return [
        dict(zip(row, values[: len(row)].softmax(0).tolist(), strict=True))
        for row, values in zip(deciding, scores, strict=True)
    ]


@torch.no_grad()
def letters_after(
    model: Any, contexts: Sequence[LetterTokens], pad_id: int, unwrapped: Any = None
) -> list[dict[str, float]]:
    """The distribution of the letter after texts without images, in one forward pass.

    Args:
        model: with its LM head; may be wrapped, as by FSDP.
        contexts: at least one.
        pad_id: token that fills the shorter ones up, on the left.
        unwrapped: the model itself, if `model` is wrapped.
    """
    unwrapped = model if unwrapped is None else unwrapped
    device = unwrapped.get_input_embeddings().weight.device
    lengths = [len(context.context) for context in contexts]
    width = max(lengths)
    ids = torch.tensor([[pad_id] * (width - len(c.context)) + c.context for c in contexts])
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    prompts = PromptBatch(upload(ids, device), upload(mask, device), [0] * len(contexts), {}, lengths)
    positions, _ = prompt_positions(unwrapped, prompts)
    outputs = model(
        input_ids=prompts.ids,
        attention_mask=prompts.mask,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=1,
    )
    return read_letters(outputs.logits[:, -1], [context.deciding for context in contexts])
