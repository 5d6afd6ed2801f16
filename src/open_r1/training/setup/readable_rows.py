"""Rows whose images open, of a set that somebody may rewrite, move or damage while it is trained on.

Every image was opened before training began (`prompt_limit`), and is opened again whenever its question comes. One
that no longer opens costs its question, not the run: another question takes its place, and that is counted.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from open_r1.common.errors import UserError
from open_r1.training.grpo.image_feed import ImageFeed, Row

_TRIES = 100  # other questions that are looked at before the set is given up
_NAMED = 3  # questions that are named one by one


class ReadableRows:
    """Replaces the rows of a batch whose images do not open any more.

    Args:
        images: opens them.
        say: is told what is left out.
    """

    def __init__(self, images: ImageFeed, say: Callable[[str], object] = print) -> None:
        self._images, self._say = images, say
        self.left_out: dict[str, str] = {}
        """id -> why its image did not open, of every question that was left out."""

    def __call__(self, rows: list[Row], group: int, dataset: Any) -> list[Row]:
        """The rows of a batch, `group` equal ones for each question; others of `dataset` for those that do not open.

        Raises:
            UserError: none of many others opens either.
        """
        problems = self._images.problems(rows[::group])
        if not problems:
            return rows
        rows = list(rows)
        for place, reason in problems.items():
            row = rows[place * group]
            self._count(str(row.get("id", "?")), reason)
            rows[place * group : (place + 1) * group] = [self._other(row, reason, dataset)] * group
        self._images.problems(rows[::group])  # opened once more, so that the batch is at hand
        return rows

    def _count(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        if len(self.left_out) <= _NAMED or len(self.left_out) % 100 == 0:
            self._say(
                f"left out while training: question {name}: {reason}; another takes its place "
                f"({len(self.left_out)} so far)"
            )

    def _other(self, row: Row, reason: str, dataset: Any) -> Row:
        """A question that opens, drawn by the hash of the one that does not."""
        start = int.from_bytes(hashlib.sha256(str(row.get("id")).encode()).digest()[:8], "big")
        for step in range(1, min(_TRIES, len(dataset)) + 1):
            other = dataset[(start + step) % len(dataset)]
            if not self._images.problems([other]):
                return other
        raise UserError(
            f"{reason}; and none of {min(_TRIES, len(dataset))} other questions has an image that opens: is the set "
            "being rewritten or moved? Put it back; the same command continues from the last checkpoint"
        )
