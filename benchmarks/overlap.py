"""What the hashes of images find: `python benchmarks/overlap.py`, some minutes on two cores.

Phantoms are drawn in all eight modalities, and five changed copies of each are made, one for each of KINDS. Every copy
is searched for among all originals: recall is the share whose original is found, a false pair is a copy and another's
original. Phantoms of a modality resemble each other as medical images do: the more originals, the more twins.
`--hash_files` compares hashes alone, as of two hash files, whose images nobody has.
"""

import io
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from PIL import Image

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.data.overlap.comparison import near_pairs
from open_r1.data.overlap.hashed_sets import HashedSplit, hash_rows
from open_r1.data.overlap.near_images import NEAR, SIGNS_ALONE
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import sample_phantoms
from open_r1_testbed.phantoms import encode

KINDS = ("JPEG and size", "flip", "crop", "contrast, brightness, gamma", "all at once")


def changed(image: Image.Image, kind: str, rng: random.Random) -> bytes:
    """A changed copy, saved as JPEG of quality 30 to 90."""
    every = kind == KINDS[-1]
    if every or kind == "crop":
        image = cropped(image, rng)
    if kind == "flip" or (every and rng.random() < 0.5):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if every and rng.random() < 0.25:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if every or kind == "JPEG and size":
        scale = rng.uniform(0.4, 1.3)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    if every or kind == "contrast, brightness, gamma":
        contrast, brightness, gamma = rng.uniform(0.85, 1.15), rng.uniform(0.92, 1.08), rng.uniform(0.8, 1.25)
        levels = [(((level / 255) ** gamma - 0.5) * contrast + 0.5) * brightness * 255 for level in range(256)]
        image = image.point([max(0, min(255, round(level))) for level in levels] * 3)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(30, 90))
    return file.getvalue()


def cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    """The image without up to a tenth of each side, of both ends together."""
    cut_across, cut_down = rng.uniform(0, 0.1), rng.uniform(0, 0.1)
    left, top = rng.uniform(0, cut_across), rng.uniform(0, cut_down)
    width, height = image.size
    right, bottom = (1 - cut_across + left) * width, (1 - cut_down + top) * height
    return image.crop((round(left * width), round(top * height), round(right), round(bottom)))


def pictures(count: int, seed: int) -> tuple[list[bytes], list[bytes]]:
    """`count` originals, and their changed copies, those of one original side by side."""
    per_modality = -(-count // len(Modality))
    phantoms = [phantom for kind in Modality for phantom in sample_phantoms(kind, per_modality, [seed])][:count]

    def make(number: int) -> tuple[bytes, list[bytes]]:
        image, rng = draw(phantoms[number]), random.Random(f"{seed} {number}")
        return encode(image), [changed(image, kind, rng) for kind in KINDS]

    with ThreadPoolExecutor(2) as pool:
        sets = list(pool.map(make, range(count)))
    return [original for original, _ in sets], [copy for _, copies in sets for copy in copies]


def hashed(name: str, images: Sequence[bytes]) -> HashedSplit:
    """The images as a split with a question for each."""
    return hash_rows(({"id": str(k), "images": [{"bytes": data}]} for k, data in enumerate(images)), name)


def measure(
    count: int, seed: int, levels: Sequence[float], hash_files: bool = False
) -> tuple[dict[float, tuple[list[float], int]], str]:
    """For each least score the recall of each kind and the false pairs; and a line about speed."""
    originals, copies = pictures(count, seed)
    start = time.perf_counter()
    first, second = hashed("originals", originals), hashed("copies", copies)
    hashing = time.perf_counter() - start
    if hash_files:
        first, second = replace(first, greys=None), replace(second, greys=None)
    pairs = [*near_pairs(second, first, min(levels))]
    searching = time.perf_counter() - start - hashing
    results, lower = {}, SIGNS_ALONE if hash_files else 0.0
    for least in levels:
        near = [(copy, original) for copy, original, score in pairs if score >= least - lower]
        right = [copy for copy, original in near if copy // len(KINDS) == original]
        recall = [sum(copy % len(KINDS) == number for copy in right) / count for number in range(len(KINDS))]
        results[least] = recall, len(near) - len(right)
    hashes, searches = (len(originals) + len(copies)) / hashing, len(copies) / searching
    return results, f"{hashes:,.0f} images opened and hashed per second, {searches:,.0f} searched for among {count:,}"


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--originals", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, nargs="+", default=[NEAR], help="scores from which images are near")
    parser.add_argument(
        "--hash_files", action="store_true", help="compare hashes alone, without an image of either side"
    )
    flags = parser.parse_args()
    results, speed = measure(flags.originals, flags.seed, flags.least, flags.hash_files)
    print(speed)
    for least, (recall, false_pairs) in results.items():
        shares = ", ".join(f"{kind} {100 * share:.2f} %" for kind, share in zip(KINDS, recall, strict=True))
        mean = 100 * sum(recall) / len(recall)
        print(f"{least}: recall {mean:.2f} % ({shares}), {false_pairs} false of {5 * flags.originals**2:,} pairs")


if __name__ == "__main__":
    run_command(main)
