"""Small sets of questions in the published form, and what runs on them need."""

import io
from pathlib import Path
from typing import Any

import datasets
from PIL import Image


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (384, 384), colour).save(buffer, "PNG")
    return buffer.getvalue()


def questions(count: int) -> dict[str, list[Any]]:
    """The published three columns."""
    return {
        "image": [{"bytes": png((20 * i, 10, 200 - 20 * i)), "path": None} for i in range(count)],
        "problem": [f"What is shown in slice {i}? A)liver, B)kidney, C)lung, D)heart" for i in range(count)],
        "solution": [f"<answer> {'ABCD'[i % 4]} </answer>" for i in range(count)],
    }


def save_published_form(folder: Path, count: int) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
    )
    rows = datasets.Dataset.from_dict(questions(count), features=features)
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(folder))


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
