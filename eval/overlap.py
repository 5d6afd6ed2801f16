"""Which images data sets share: byte by byte, and nearly (re-encoded, resized, flipped, cropped, brighter).

    python eval/overlap.py data/VQA/vqa_rad data/VQA/slake --output overlap.csv
    python eval/overlap.py data/VQA/vqa_rad --write_hashes vqa_rad.hashes
    python eval/overlap.py my_set vqa_rad.hashes

A set is anything that training and evaluation read, or a hash file that somebody else wrote: it holds hashes and ids,
and no image. All splits of all sets are compared with each other, also within a set. Of every pair of splits the table
has the images of the second that are in the first, and the share of the questions of both that show a shared image.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from open_r1.common.atomic_files import write_atomically
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.data.overlap.clusters import near_clusters, write_clusters
from open_r1.data.overlap.comparison import EXACT, SharedImages, shared_images
from open_r1.data.overlap.hash_files import is_hash_file, read_hashes, write_hashes
from open_r1.data.overlap.hashed_sets import HashedSplit, hash_set
from open_r1.data.overlap.near_images import NEAR
from open_r1.vocabulary.column_names import parse_columns

COLUMNS = (
    *("first", "second", "images_of_second", "same_bytes", "nearly_same"),
    *("questions_of_first", "touched_of_first", "questions_of_second", "touched_of_second"),
)


def main() -> int:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("sets", nargs="+", metavar="SET", help="data sets, or files of --write_hashes")
    add("--splits", nargs="+", help="compare only splits of these names (default: all)")
    add("--output", type=Path, help="CSV file with a row for each pair of splits")
    add("--pairs", type=Path, help="CSV file with the ids of each two questions that share an image")
    add("--write_hashes", type=Path, metavar="FILE", help="file with hashes and ids of all these sets, to share")
    add("--write_clusters", type=Path, metavar="FILE", help="CSV file of clusters for --clusters of eval/report.py")
    add("--least", type=float, default=NEAR, help="least score of nearly equal images, 0.5 to 1 (default: %(default)s)")
    add("--image_root", type=Path, help="folder of the images that rows name")
    add("--columns", help="other names of columns: problem=question,solution=answer")
    flags = parser.parse_args()
    if not 0.5 <= flags.least <= 1:
        raise UserError(f"--least {flags.least} is no score of nearly equal images; give 0.5 to 1")
    names = parse_columns(flags.columns)
    splits: list[HashedSplit] = []
    for path in flags.sets:
        of_set = read_hashes(path) if is_hash_file(path) else hash_set(path, flags.splits, flags.image_root, names)
        for split in of_set:
            print(split.line(), flush=True)
        splits += of_set
    if flags.write_hashes is not None:
        write_hashes(flags.write_hashes, splits)
        print(f"written: {flags.write_hashes} ({flags.write_hashes.stat().st_size / 2**20:.1f} MiB)")
    if flags.write_clusters is not None:
        clusters = near_clusters(splits, flags.least)
        write_clusters(flags.write_clusters, clusters)
        print(f"written: {flags.write_clusters} ({len(set(clusters.values())):,} clusters of nearly equal images)")
    if len(splits) < 2:
        return 0
    compared = [shared_images(first, second, flags.least) for first, second in combinations(splits, 2)]
    for shared in compared:
        print(line_of(shared))
    if flags.output is not None:
        write_table(flags.output, COLUMNS, [row_of(shared) for shared in compared])
    if flags.pairs is not None:
        rows = [
            (shared.first.name, shared.second.name, first, second, "same bytes" if score == EXACT else f"{score:.3f}")
            for shared in compared
            for first, second, score in shared.question_pairs()
        ]
        write_table(flags.pairs, ("first", "second", "id_in_first", "id_in_second", "score"), rows)
    return 0


def row_of(shared: SharedImages) -> tuple[str | int, ...]:
    """The row of two splits under COLUMNS."""
    first, second = shared.first, shared.second
    return (
        *(first.name, second.name, len(second.keys), shared.same_bytes, shared.near),
        *(len(first.questions), shared.touched(False), len(second.questions), shared.touched(True)),
    )


def line_of(shared: SharedImages) -> str:
    """What is printed of two splits."""
    shares = []
    for split, in_second in ((shared.second, True), (shared.first, False)):
        touched, count = shared.touched(in_second), len(split.questions)
        shares.append(f"{touched:,} of {count:,} ({100 * touched / max(1, count):.1f} %)")
    return (
        f"{shared.first.name} and {shared.second.name}: of {len(shared.second.keys):,} images of the second "
        f"{shared.same_bytes:,} are the same and {shared.near:,} nearly; {shares[0]} of its questions and {shares[1]} "
        "of the first's show one"
    )


def write_table(path: Path, columns: tuple[str, ...], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


if __name__ == "__main__":
    run_command(main)
