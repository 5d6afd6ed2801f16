"""The probability of each letter at the steps of decoding, from the logits that decoding computes anyway.

`modeling/decoding/letter_probabilities.py` has the next letter after a text that is forced on the model.

What is measured: the model has read the prompt and written its completion up to the token that holds the letter of its
answer; the probability of a letter is the sum over all tokens that would write this letter next. They differ in the
spaces and marks around it: of `<answer>C` the tokenizers of Qwen make `<answer` and `>C`, of `<answer> C` they make
`<answer`, `>` and ` C`. So no forward pass is added, and an answer after thoughts is conditioned on these thoughts.

The `multiple_choice` of lm-evaluation-harness compares the log-likelihoods of " A", " B", ... after a prompt that ends
on "Answer:", and the original code of MMLU does the same; here the model itself has written what precedes the letter.
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from open_r1.modeling.decoding.loop import Pick

LETTERS = string.ascii_uppercase
_OTHER = set(string.ascii_lowercase + string.digits)
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte that has no other token, or one that is never needed


def tokens_of_letters(tokenizer: Any) -> dict[int, str]:
    """id -> letter of every token that writes one capital letter and otherwise spaces and marks alone."""
    letters = {}
    for token, token_id in tokenizer.get_vocab().items():
        may_be_letter = sum(character in LETTERS for character in token) == 1 and _OTHER.isdisjoint(token)
        if not may_be_letter and not _BYTE.fullmatch(token):
            continue
        text = tokenizer.decode([token_id])  # the vocabulary spells spaces and bytes in its own way
        words = "".join(character for character in text if character.isalnum())
        if words in LETTERS and len(words) == 1 and "\ufffd" not in text:
            letters[token_id] = words
    return letters


class LetterRecorder:
    """Records the probability of each letter while rows are decoded.

    Args:
        tokenizer: of the model.
        device: where decoding runs.
    """

    def __init__(self, tokenizer: Any, device: torch.device) -> None:
        self._tokenizer = tokenizer
        self._letter_of = tokens_of_letters(tokenizer)
        self._ids = torch.tensor([*self._letter_of], dtype=torch.long, device=device)
        places = [LETTERS.index(letter) for letter in self._letter_of.values()]
        self._places = torch.tensor(places, dtype=torch.long, device=device)
        self.values = torch.zeros(0, 0, len(LETTERS))

    def recording(self, pick: Pick, rows: int, steps: int) -> Pick:
        """`pick`, while `values` becomes the (rows, steps, 26) probabilities of the letters at each step."""
        values = self.values = torch.zeros(rows, steps, len(LETTERS), device=self._ids.device)

        def record(logits: torch.Tensor, live_rows: torch.Tensor, step: int) -> torch.Tensor:
            shares = (logits.index_select(1, self._ids) - logits.logsumexp(1, keepdim=True)).exp()
            by_letter = shares.new_zeros(len(shares), len(LETTERS)).index_add_(1, self._places, shares)
            values[:, step].index_copy_(0, live_rows, by_letter)
            return pick(logits, live_rows, step)

        return record

    def written(self, tokens: Sequence[int], values: torch.Tensor) -> dict[int, dict[str, float]]:
        """Every letter that is a token of its own: its index in the completion's text -> the probabilities there.

        Args:
            tokens: the completion.
            values: (steps, 26) of its row, on the CPU.
        """
        by_place = {}
        for step, token in enumerate(tokens):
            letter = self._letter_of.get(token)
            if letter is None:
                continue
            text = self._tokenizer.decode(tokens[: step + 1], skip_special_tokens=True)
            by_place[text.rindex(letter)] = dict(zip(LETTERS, values[step].tolist(), strict=True))
        return by_place


def offered_probabilities(
    by_place: Mapping[int, Mapping[str, float]], place: int | None, letters: Mapping[str, str]
) -> dict[str, float] | None:
    """The probabilities of the offered letters where the answer is written; None if no token there is a letter.

    They add up to less than 1 by what lies on other tokens.

    Args:
        by_place: of `LetterRecorder.written`.
        place: index of the answer's letter in the text; None if the answer is not written as a letter.
        letters: letter as shown -> letter of the same option in the row.
    """
    if place is None or place not in by_place:
        return None
    here = by_place[place]
    shares = {row_letter: float(f"{here[shown]:.6g}") for shown, row_letter in letters.items()}
    return dict(sorted(shares.items()))
