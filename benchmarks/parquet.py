"""What a Parquet set that is larger than one likes to hold in memory costs to load: seconds and memory, twice.

python benchmarks/parquet.py

A file of random bytes in place of images is written, then loaded in two processes, one after the other: the first
converts it, the second finds the converted file. Memory is the largest amount that the process had for itself
(RssAnon): pages of files, which the system takes back when it needs them, are left out.
"""

import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.data.loading import load_rows

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema([("image", IMAGE), ("question", pa.string()), ("answer", pa.string())])
NAMES = {"problem": "question", "solution": "answer"}


def write_set(path: Path, rows: int, size: int, row_group: int) -> None:
    """A file as the hub has them: `rows` questions with an image of `size` bytes each."""
    random = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, row_group):
            count = min(row_group, rows - start)
            images = [{"bytes": random.bytes(size), "path": None} for _ in range(count)]
            questions = [f"Is it number {start + place}?" for place in range(count)]
            columns = {"image": images, "question": questions, "answer": ["yes"] * count}
            writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=row_group)


class PeakMemory(threading.Thread):
    """Looks at this process's own memory until it is asked."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0

    def run(self) -> None:
        """Look a hundred times a second."""
        while True:
            status = Path("/proc/self/status").read_text()
            if match := re.search(r"RssAnon:\s+(\d+)", status):
                self.mib = max(self.mib, int(match[1]) // 1024)
            time.sleep(0.01)


def load(path: Path) -> None:
    """Load the set once and print what it took."""
    memory = PeakMemory()
    memory.start()
    time.sleep(0.05)
    at_first, start = memory.mib, time.perf_counter()
    rows, _ = load_rows(path, "test", columns=NAMES)
    seconds = time.perf_counter() - start
    print(
        f"{len(rows):,} rows in {seconds:.1f} s, {memory.mib - at_first:,} MiB beside the {at_first} of the libraries"
    )


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--image_bytes", type=int, default=200_000)
    parser.add_argument("--row_group", type=int, default=1000, help="rows in a row group")
    parser.add_argument("--load", type=Path, help="load this file once, in the cache beside it")
    flags = parser.parse_args()
    if flags.load is not None:
        datasets.config.HF_DATASETS_CACHE = flags.load.parent / "cache"  # pyright: ignore[reportAttributeAccessIssue]
        load(flags.load)
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "test.parquet"
        write_set(path, flags.rows, flags.image_bytes, flags.row_group)
        print(f"{path.stat().st_size / 2**30:.2f} GiB in row groups of {flags.row_group:,} rows")
        for _ in range(2):
            subprocess.run([sys.executable, __file__, "--load", str(path)], check=True)


if __name__ == "__main__":
    run_command(main)
