"""What the model in training would answer without the image: once per question, in one pass over its text."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from open_r1.common.errors import UserError
from open_r1.grading.formats import FORMS
from open_r1.grading.problems import options_in
from open_r1.modeling.decoding.letter_probabilities import LetterTokens, letter_tokens, letters_after
from open_r1.modeling.sharding import weights_are_sharded
from open_r1.rewards.looking import COLUMN
from open_r1.rewards.settings import Completion, completion_text
from open_r1.training.grpo.image_feed import Row
from open_r1.training.grpo.verification import active_dropout, evaluating
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

_BEFORE_LETTER = re.compile(r"<answer>(\s*)[A-Z]\b")


class BlindAnswers:
    """The distribution of a question's letters without its images, from the model as it is now.

    The prompt is that of `eval/infer.py --image none`, and the letter stands after `<answer>` and the white space with
    which most completions begin their answer.

    Args:
        processor: of the checkpoint.
        mode: form of a completion; its answer comes first.
        template_options: further arguments of the chat template.

    Raises:
        UserError: in `mode` thoughts come first.
    """

    def __init__(self, processor: Any, mode: Mode, template_options: Mapping[str, Any] | None = None) -> None:
        self._processor, self._mode, self._template_options = processor, mode, template_options or {}
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._opening, self._space = FORMS[mode][0], ""
        if self._opening != "<answer>":
            raise UserError(
                f"--reward_funcs looking, --probe_steps: in the mode {mode} an answer follows from thoughts, and what "
                "it would be without the image cannot be read from one pass; use --mode nothink or think_after"
            )

    def add_to(
        self, rows: list[Row], completions: Sequence[Completion], group: int, model: Any, accelerator: Any
    ) -> list[Row]:
        """Rows of whole groups with the column of the reward `looking`.

        Args:
            rows: one for each completion.
            completions: what the model answers with the images.
            group: completions of a question.
            model: as in `letters`.
            accelerator: as in `letters`.
        """
        self.note_space(completions)
        letters = self.letters(rows[::group], model, accelerator)
        return [{**row, COLUMN: letters[index // group]} for index, row in enumerate(rows)]

    def note_space(self, completions: Iterable[Completion]) -> None:
        """Expect a letter after the white space with which most of these completions begin their answer."""
        matches = [_BEFORE_LETTER.search(completion_text(completion)) for completion in completions]
        spaces = Counter(match[1] for match in matches if match is not None)
        self._space = max(spaces, key=lambda space: spaces[space], default=self._space)

    def letters(self, questions: Sequence[Row], model: Any, accelerator: Any) -> list[dict[str, float] | None]:
        """The probability of each offered letter, which sum to 1; None for a question without an image or a choice.

        Args:
            questions: rows with prompts.
            model: in training; its dropout is off meanwhile.
            accelerator: for autocast and for unwrapping the model.
        """
        letters: list[dict[str, float] | None] = [None] * len(questions)
        places = [place for place, row in enumerate(questions) if _shows_image(row) and _is_choice(row)]
        texts = [self._text(questions[place]["problem"]) for place in places]
        offered = [list(options_in(questions[place]["problem"])) for place in places]
        contexts = dict(zip(places, letter_tokens(self._tokenizer, texts, offered), strict=True))
        contexts = {place: context for place, context in contexts.items() if context is not None}
        pad_id = self._tokenizer.pad_token_id
        if not contexts and weights_are_sharded():  # other processes wait for a pass
            letters_after(model, [LetterTokens([pad_id], {"A": 0})], pad_id, accelerator.unwrap_model(model))
        elif contexts:
            with evaluating(active_dropout(model)), accelerator.autocast():
                results = letters_after(model, list(contexts.values()), pad_id, accelerator.unwrap_model(model))
            for place, result in zip(contexts, results, strict=True):
                letters[place] = result
        return letters

    def _text(self, problem: str) -> str:
        messages = build_messages(problem, self._mode, images=0)
        options = {"tokenize": False, "add_generation_prompt": True, **self._template_options}
        return self._processor.apply_chat_template(messages, **options) + self._opening + self._space


def _shows_image(row: Row) -> bool:
    content = row["prompt"][-1]["content"]
    return not isinstance(content, str) and any(block["type"] == "image" for block in content)


def _is_choice(row: Row) -> bool:
    return row.get("answer_type", AnswerType.CHOICE) == AnswerType.CHOICE
