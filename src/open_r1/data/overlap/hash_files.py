"""Hash files: the hashes and ids of data sets, so that people can compare sets without sharing them.

Lines of JSON. The first one holds the version and parameters of the hashes and the SHA-256 of the others, which are
`["split", name, unreadable]`, `["image", key, hash]` and `["question", id, [places]]`. An image cannot be rebuilt from
them: a hash holds signs of at most 16 x 16 frequencies, at best a blurred outline of 16 x 16 fields.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import parse_json, write_atomically
from open_r1.common.errors import UserError
from open_r1.data.overlap.hashed_sets import HashedSplit
from open_r1.data.overlap.image_hashes import COARSE_FREQUENCIES, FREQUENCIES, HASH_BYTES, MAX_CUT, SIDE, VERSION

_MARK = "open_r1_image_hashes"
_PARAMETERS = {"side": SIDE, "frequencies": [COARSE_FREQUENCIES, FREQUENCIES], "max_cut": MAX_CUT}


def write_hashes(path: Path, splits: Sequence[HashedSplit]) -> None:
    """Write a hash file.

    Raises:
        UserError: the path is taken by something that is no hash file.
    """
    if path.exists() and not is_hash_file(path):
        raise UserError(f"--write_hashes {path} exists and is no hash file; name another file so that nothing is lost")
    body = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in _lines(splits))
    head = {_MARK: VERSION, "parameters": _PARAMETERS, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    write_atomically(path, json.dumps(head) + "\n" + body)


def _lines(splits: Sequence[HashedSplit]) -> Iterator[list[Any]]:
    for split in splits:
        yield ["split", split.name, split.unreadable]
        for key, code in zip(split.keys, split.hashes, strict=True):
            yield ["image", key, None if code is None else base64.b64encode(code).decode()]
        for name, places in split.questions:
            yield ["question", name, list(places)]


def is_hash_file(path: str | os.PathLike) -> bool:
    """Whether a file begins as a hash file does."""
    try:
        with open(path, "rb") as file:
            return os.path.isfile(path) and file.read(len(_MARK) + 4).startswith(f'{{"{_MARK}"'.encode())
    except OSError:
        return False


def read_hashes(path: str | os.PathLike) -> list[HashedSplit]:
    """The splits of a hash file.

    Raises:
        UserError: it is damaged, or of another version.
    """
    try:
        first, _, body = Path(path).read_bytes().partition(b"\n")
        head = parse_json(first)
        version, parameters, digest = head[_MARK], head["parameters"], head["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a hash file ({type(error).__name__}); write it again") from None
    if version != VERSION or parameters != _PARAMETERS:
        raise UserError(
            f"{path} holds hashes of version {version!r} with {parameters!r}, which cannot be compared with those of "
            f"version {VERSION} with {_PARAMETERS}; have it written again with this version"
        )
    if hashlib.sha256(body).hexdigest() != digest:
        raise UserError(f"{path} is damaged: its content is not what was written; copy it or write it again")
    splits: list[HashedSplit] = []
    try:
        for line in body.splitlines():
            _take(splits, parse_json(line))
    except (ValueError, TypeError, IndexError, binascii.Error) as error:
        raise UserError(f"{path} is damaged: {error!s:.100}; write it again") from None
    if not splits:
        raise UserError(f"{path} holds the hashes of no split; write it again")
    return splits


def _take(splits: list[HashedSplit], line: Any) -> None:
    kind, name, content = line
    if kind == "split":
        splits.append(HashedSplit(str(name), unreadable=int(content)))
    elif kind == "image":
        code = None if content is None else base64.b64decode(content, validate=True)
        if code is not None and len(code) != HASH_BYTES:
            raise ValueError(f"a hash of {len(code)} bytes")
        splits[-1].keys.append(str(name))
        splits[-1].hashes.append(code)
    elif kind == "question":
        if not all(type(place) is int and 0 <= place < len(splits[-1].keys) for place in content):
            raise ValueError("a question names an image that is not there")
        splits[-1].questions.append((str(name), tuple(content)))
    else:
        raise ValueError("a line of an unknown kind")
