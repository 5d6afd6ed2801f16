"""Good images and rows, and the ways in which disks, downloads, spreadsheets and malice damage them."""

import copy
import json
import random
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from open_r1.data.json_lists import LONGEST_ENTRY
from open_r1.vocabulary.labels import Task

ENDLESS = 0.03  # the share of long texts that are longer than a row may hold

Value = Any
Draw = random.Random


def seed_images() -> list[tuple[str, bytes]]:
    """Small images of every allowed format and mode, as (suffix, bytes)."""
    noise = Image.effect_noise((24, 20), 60)
    images = []
    for mode, form, options in (
        ("L", "PNG", {}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("RGBA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("1", "PNG", {}),
        ("L", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "comment": b"made up", "exif": b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0"}),
        ("CMYK", "JPEG", {}),
        ("RGB", "BMP", {}),
        ("P", "BMP", {}),
        ("L", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("F", "TIFF", {}),
        ("P", "GIF", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {}),
    ):
        stream = BytesIO()
        image = noise.convert("I").convert("I;16") if mode == "I;16" else noise.convert(mode)
        image.save(stream, form, **options)
        images.append((form.lower(), stream.getvalue()))
    return images


def row(number: int, image: str) -> dict[str, str]:
    """A good question about an image, in the form of the split files."""
    return {
        "image": image,
        "problem": f"Which method made image {number}? A)CT, B)MRI (T{number % 7}), C)X-Ray",
        "solution": f"<answer> {'ABC'[number % 3]} </answer>",
    }


def release_row(number: int, image: str) -> dict[str, Any]:
    """The same in the form of the release."""
    options = {"option_A": "CT", "option_B": f"MRI (T{number % 7})", "option_C": "X-Ray"}
    return {
        "dataset": "Fuzzed",
        "question_id": f"Fuzzed_{number:05d}",
        "question_type": Task.MODALITY.value,
        "modality_type": "CT(Computed Tomography)",
        "question": f"Which method made image {number}?",
        "gt_answer": list(options.values())[number % 3],
        "image_path": image,
        **options,
    }


def flip(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """One to eight bits turned over."""
    broken = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
    return bytes(broken)


def overwrite(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """A run of up to 32 bytes replaced by chance, zeros or ones; in the first 200 bytes half of the time."""
    reach = min(len(data), 200) if draw.random() < 0.5 else len(data)
    at, length = draw.randrange(reach), draw.randint(1, 32)
    filling = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return data[:at] + filling + data[at + length :]


def truncate(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """The beginning alone."""
    return data[: draw.randrange(len(data))]


def splice(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: draw.randrange(len(data))] + donor[draw.randrange(len(donor)) :]


def insert(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """Bytes put in: chance, or a part of another file."""
    at, start = draw.randrange(len(data)), draw.randrange(len(donor))
    piece = draw.choice([draw.randbytes(draw.randint(1, 64)), donor[start : start + draw.randint(1, 400)]])
    return data[:at] + piece + data[at:]


def repeat(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """A part of the file up to a thousand times."""
    at = draw.randrange(len(data))
    return data[:at] + data[at : at + draw.randint(1, 40)] * draw.choice([2, 10, 1000]) + data[at:]


def cut_out(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """A part left out."""
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.randint(1, 64) :]


def append(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """Another file behind the end."""
    return data + draw.choice([donor, draw.randbytes(50), b"PK\x03\x04" + donor, b"\0" * 1000])


def swap(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """Something else altogether under this name."""
    return draw.choice(
        [
            b"",
            donor,
            b"\0",
            b"null",
            b"%PDF-1.7",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"\x1f\x8b",
            b"\xff\xd8",
        ]
    )


BYTES = (flip, overwrite, truncate, splice, insert, repeat, cut_out, append, swap)


def texts_otherwise(data: bytes, donor: bytes, draw: Draw) -> bytes:
    """The same text in another encoding, or with a byte order mark."""
    text = data.decode("utf-8", "replace")
    return draw.choice(
        [
            b"\xef\xbb\xbf" + data,
            text.encode("utf-16"),
            text.encode("latin-1", "replace") + b"\xe9",
            data.replace(b"\n", b"\r"),
            data.replace(b'"', b"'"),
            b"\xef\xbb\xbf" * 2 + data,
        ]
    )


def deep(levels: int, inner: Value = 1) -> Value:
    """A list within a list, `levels` times."""
    for _ in range(levels):
        inner = [inner]
    return inner


REFERENCES = (
    *("http://127.0.0.1:9/x.png", "https://example.org/x.png", "file:///etc/passwd", "ftp://127.0.0.1/x.png"),
    *("/etc/passwd", "//host/share/x.png", "\\\\host\\share\\x.png", "../../../../etc/passwd", "Images/../../x"),
    *("data:image/png;base64,iVBORw0KGgo=", "x\0.png", "x" * 5000, "/proc/self/environ", "/dev/zero", ".", "", "~"),
    *("%2e%2e/%2e%2e/etc/passwd", "a" * 255, "\ud800.png", "\u202egnp.x", "Images", "s3://bucket/x", "c:\\x.png"),
)

STRANGE: tuple[Callable[[], Value], ...] = (
    *(lambda value=value: value for value in (None, True, 0, -1, 1e308, float("nan"), float("inf"), [], {}, "", " ")),
    lambda: 10**400,
    lambda: 10**4000,
    lambda: "x" * 20_000,
    lambda: "A)" * 3000,
    lambda: "\ud800",
    lambda: "a\u0301" * 500,
    lambda: "<answer>" * 200,
    lambda: ["A"],
    lambda: {"A": {"B": None}},
    lambda: deep(40),
)


def another_value(entry: dict[str, Value], draw: Draw) -> None:
    """A value of another type or a size that nobody meant."""
    entry[draw.choice(list(entry))] = draw.choice(STRANGE)()


def another_reference(entry: dict[str, Value], draw: Draw) -> None:
    """An image that lies elsewhere, or a text where none belongs."""
    names = [name for name in ("image", "image_path") if name in entry] or list(entry)
    entry[draw.choice(names)] = draw.choice(REFERENCES)


def lost_key(entry: dict[str, Value], draw: Draw) -> None:
    """A key left out."""
    entry.pop(draw.choice(list(entry)))


def renamed_key(entry: dict[str, Value], draw: Draw) -> None:
    """A key under another name."""
    name = draw.choice(list(entry))
    entry[draw.choice([name.upper(), name + " ", "\ud800", "", "__class__"])] = entry.pop(name)


def swapped_values(entry: dict[str, Value], draw: Draw) -> None:
    """The values of two keys exchanged."""
    left_key, right_key = draw.choice(list(entry)), draw.choice(list(entry))
    entry[left_key], entry[right_key] = entry[right_key], entry[left_key]


VALUES = (another_value, another_reference, lost_key, renamed_key, swapped_values)


def damaged_entries(entries: list[dict[str, Value]], draw: Draw) -> tuple[str, list[Value]]:
    """Some rows of a list changed; which change, and the list."""
    changed: list[Value] = [copy.copy(entry) for entry in entries]
    change = draw.choice(VALUES)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(changed))
        if draw.random() < 0.1:
            changed[place] = draw.choice(STRANGE)()
        elif isinstance(changed[place], dict) and changed[place]:
            change(changed[place], draw)
    if draw.random() < 0.1:
        changed.insert(draw.randrange(len(changed)), copy.copy(draw.choice(changed)))
    return change.__name__, changed


def written(value: Value, draw: Draw) -> str:
    """JSON text of a value; half of the time without escapes, so that half a surrogate pair is written as it can be."""
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def damaged_text(text: str, donor: str, draw: Draw) -> tuple[str, bytes]:
    """A JSON text damaged as bytes, or with a number or nesting that no parser likes."""
    kinds: list[Any] = [*BYTES, texts_otherwise, "digits", "nested", "doubled", "twice", "endless"]
    kind = draw.choice(kinds)
    if kind == "digits":
        return kind, text.replace('"', "9" * 6000 + '"', 1).replace("[{", "[" + "8" * 6000 + ",{", 1).encode()
    if kind == "nested":
        levels = draw.choice([900, 5000, 200_000])
        return kind, text.replace("{", '{"deep": ' + "[" * levels + "]" * draw.choice([levels, 3]) + ",", 1).encode()
    if kind == "doubled":
        return kind, text.replace("{", '{"image": 5, "image": "x", "id": "1", "id": "1", ', 1).encode()
    if kind in ("twice", "endless"):  # one key of one row, with another value before its own or after a long one
        places = [match.start(1) for match in re.finditer(r'[{,]\s*("\w+": )', text)] or [0]
        at = draw.choice(places)
        key = text[at : text.find(":", at) + 2] if kind == "twice" else '"endless": '
        length = LONGEST_ENTRY + 5 if draw.random() < ENDLESS else 9000
        value = '"x", ' if kind == "twice" else f'"{chr(92) * 2 * 9}{"x" * length}", '
        return kind, (text[:at] + key + value + text[at:]).encode()
    return kind.__name__, kind(text.encode(), donor.encode(), draw)
