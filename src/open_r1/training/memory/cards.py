"""GPUs by name: the memory that torch finds on each, and how `--plan` is told of them."""

import re
from dataclasses import dataclass

from open_r1.common.errors import UserError


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    gib: float
    """Memory that a process finds (`torch.cuda.get_device_properties(...).total_memory`), in GiB."""
    teraflops: float | None = None
    """Dense bfloat16 products per second by the vendor's data sheet, in 10^12 operations."""
    bandwidth: float | None = None
    """Of its memory, in GB/s, by the same sheet."""


# A driver and error correction take a part of what a card is sold with: 79.1 of 80 GB are found on an H100.
CARDS = {
    card.name: card
    for card in (
        Card("RTX3090", 23.6, 71, 936),
        Card("RTX4090", 23.6, 165, 1008),
        Card("L4", 22.0, 121, 300),
        Card("A10", 22.0, 125, 600),
        Card("RTX5090", 31.4, 210, 1792),
        Card("V100", 31.7),
        Card("A100-40", 39.4, 312, 1555),
        Card("L40S", 44.4, 362, 864),
        Card("A40", 44.4, 150, 696),
        Card("A6000", 47.4, 155, 768),
        Card("A100", 79.1, 312, 2039),
        Card("H100", 79.1, 989, 3350),
        Card("H200", 139.7, 989, 4800),
        Card("B200", 178.3, 2250, 8000),
    )
}
# What is sold as so many GB, for who knows no more: the smallest of those above.
SOLD_AS = {24: 22.0, 32: 31.4, 40: 39.4, 48: 44.4, 80: 79.1, 96: 94.0, 141: 139.7, 180: 178.3}


def parse_cards(text: str) -> tuple[Card, int]:
    """`H100:2`, `80GB:4` or `24` as a card and how many of it.

    Raises:
        UserError: no such card, or a number that is none.
    """
    name, _, count = text.partition(":")
    if count and not (count.isdecimal() and int(count) > 0):
        raise UserError(f"--plan {text}: {count!r} is no number of GPUs; write H100:2, say")
    return _card(name, text), int(count or 1)


def _card(name: str, text: str) -> Card:
    plain = re.sub(r"[\s_-]", "", name).upper()
    for card in CARDS.values():
        if plain == card.name.replace("-", ""):
            return card
    size = re.fullmatch(r"(\d+(?:\.\d+)?)(GI?B?)?", plain)
    if size is None:
        raise UserError(
            f"--plan {text}: no card is called {name!r} here; name one of {', '.join(CARDS)}, or give its memory "
            "as 48GB:2"
        )
    gigabytes = float(size[1])
    if gigabytes in SOLD_AS:
        return Card(f"{size[1]} GB", SOLD_AS[int(gigabytes)])
    return Card(f"{size[1]} GB", gigabytes * 1e9 / 2**30 * 0.98)
