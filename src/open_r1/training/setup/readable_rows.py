"""Replace rows whose images can no longer be opened, because files were changed, moved or damaged during training.

Every image was opened before training (`prompt_check`) and is opened again when its question is used. If that fails,
another question replaces it and the run goes on; replaced questions are recorded.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from open_r1.common.errors import UserError
from open_r1.training.grpo.image_feed import ImageFeed, Row

_TRIES = 100  # other questions that are tried before the run stops
_NAMED = 3  # questions that are reported one by one


class ReadableRows:
    """Replaces the rows of a batch whose images can no longer be opened.

    Args:
        images: opens images.
        say: prints a line about skipped questions.
    """

    def __init__(self, images: ImageFeed, say: Callable[[str], object] = print) -> None:
        self._images, self._say = images, say
        self.left_out: dict[str, str] = {}
        """id -> why its image could not be opened, of every skipped question."""

    def __call__(self, rows: list[Row], group: int, dataset: Any) -> list[Row]:
        """The rows of a batch, `group` equal ones per question, with rows of `dataset` in place of unreadable ones.

        Raises:
            UserError: if many other images cannot be opened either.
        """
        problems = self._images.problems(rows[::group])
        if not problems:
            return rows
        rows = list(rows)
        for index, reason in problems.items():
            row = rows[index * group]
            self._count(str(row.get("id", "?")), reason)
            rows[index * group : (index + 1) * group] = [self._replacement(row, reason, dataset)] * group
        self._images.problems(rows[::group])  # opens the new batch, whose images the next calls reuse
        return rows

    def _count(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        if len(self.left_out) <= _NAMED or len(self.left_out) % 100 == 0:
            self._say(
                f"skipped during training: question {name}: {reason}; another question replaces it "
                f"({len(self.left_out)} so far)"
            )

    def _replacement(self, row: Row, reason: str, dataset: Any) -> Row:
        """A readable row, chosen by the hash of the unreadable one."""
        start = int.from_bytes(hashlib.sha256(str(row.get("id")).encode()).digest()[:8], "big")
        for step in range(1, min(_TRIES, len(dataset)) + 1):
            candidate = dataset[(start + step) % len(dataset)]
            if not self._images.problems([candidate]):
                return candidate
        raise UserError(
            f"{reason}; nor can the images of {min(_TRIES, len(dataset))} other questions be opened. Was the data "
            "set moved or rewritten? Put it back; the same command continues from the last checkpoint"
        )
