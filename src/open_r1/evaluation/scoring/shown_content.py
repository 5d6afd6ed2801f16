"""What the model was shown: a result file is continued only where the images and texts of its answers are the same.

The ids of questions know an image by its path at most. So every answer keeps a hash of what was shown with it, and the
manifest one of all questions that are asked. On one busy core that takes half a second per 1,000 images of 130 KB.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import write_atomically
from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import read_results

_THREADS = 4  # reading and hashing release Python's lock
_BATCH = 256


def row_contents(rows: Any, content: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
    """id -> what is shown of that question, for every row of a data set.

    Args:
        rows: of `load_rows`.
        content: of one row, as `View.content` gives it.
    """
    found: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="content") as pool:
        for start in range(0, len(rows), _BATCH):
            batch = list(rows.select(range(start, min(start + _BATCH, len(rows)))))
            found.update(zip([row["id"] for row in batch], pool.map(content, batch), strict=True))
    return found


def require_same_content(
    path: Path, shown: Mapping[str, str], content_sha256: str, say: Callable[[str], object]
) -> None:
    """Refuse to continue a file of answers to other texts or images than are there now.

    Questions that could not be asked do not count: their images may have been mended since, and then the manifest
    gets the new hash of the set.

    Args:
        path: the result file.
        shown: id -> what is shown now.
        content_sha256: the hash of all that.
        say: is told where an older file does not say what was shown.

    Raises:
        UserError: an answer was given to something else.
    """
    file = read_results(path)
    answered = [result for result in file.results if result.error is None]
    changed = [result.id for result in answered if result.content not in (None, shown.get(result.id))]
    if changed:
        raise UserError(
            f"{path} holds results of another run, it differs in content_sha256: the images or texts of "
            f"{len(changed)} of its {len(answered)} answered questions were changed since they were asked (the first: "
            f"{changed[0]}), and answers to both mixed would mean nothing. Put the earlier data back, or choose "
            "another output path"
        )
    unrecorded = sum(result.content is None for result in answered)
    if unrecorded:
        say(
            f"{path} was begun before answers recorded which images were shown: whether the images of "
            f"{unrecorded} answered questions are still the same cannot be checked"
        )
    elif file.manifest.get("content_sha256") != content_sha256:
        _, _, lines = path.read_bytes().partition(b"\n")
        manifest = json.dumps({"manifest": file.manifest | {"content_sha256": content_sha256}}, ensure_ascii=False)
        write_atomically(path, manifest.encode("utf-8", "backslashreplace") + b"\n" + lines)
