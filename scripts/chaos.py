"""Kill, signal, damage and spoil real training runs, and say with counts what was survived.

python scripts/chaos.py --output_dir output/chaos --seed 0

Every run is held against an uninterrupted one: weights and logged numbers must be equal to the bit.
"""

import argparse
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1_testbed import damaged_checkpoints, fault_scenarios, injected_faults
from open_r1_testbed.demo_steps import prepare_folder

Scenario = Callable[[], str]


def main() -> int:
    """Run the chosen scenarios; exit status 1 if one did not hold."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("output/chaos"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which things happen")
    parser.add_argument("--kills", type=int, default=25, help="kill -9 for each layout of processes")
    parser.add_argument("--kills_while_saving", type=int, default=100)
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="kills saving damage signals faults")
    parser.add_argument("--quick", action="store_true", help="a few of each kind, as the tests run it")
    parser.add_argument("--overwrite", action="store_true", help="remove what an earlier run left in that folder")
    flags = parser.parse_args()
    prepare_folder(flags.output_dir, flags.overwrite)
    site = fault_scenarios.Site(flags.output_dir / "runs", flags.seed)
    failed = 0
    for kind, scenario in scenarios(site, flags):
        if flags.only and kind not in flags.only:
            continue
        start = time.monotonic()
        try:
            line = scenario()
        except Exception as error:  # the other scenarios are worth knowing about all the same
            line, failed = f"NOT SURVIVED: {type(error).__name__}: {error}", failed + 1
        print(f"{kind}: {line} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{failed} scenarios were not survived" if failed else "all survived")
    return int(failed > 0)


def scenarios(site: fault_scenarios.Site, flags: argparse.Namespace) -> Iterator[tuple[str, Scenario]]:
    """(kind, what to do), in order."""
    single, pair, zero2, zero3 = (
        fault_scenarios.LAYOUTS[0],
        fault_scenarios.Layout(2),
        fault_scenarios.Layout(2, stage=2),
        fault_scenarios.Layout(2, stage=3),
    )
    evaluating, fsdp = fault_scenarios.Layout(2, evaluates=True), fault_scenarios.Layout(2, fsdp=True)
    if flags.quick:
        yield "kills", lambda: fault_scenarios.kills(site, fault_scenarios.Layout(evaluates=True), 2)
        yield "kills", lambda: fault_scenarios.kills(site, evaluating, 1)
        yield "kills", lambda: fault_scenarios.kill_of_one(site, evaluating, 0)
        yield "saving", lambda: fault_scenarios.kills_while_saving(site, 3)
        yield from damages(site, {"weights cut"})
        yield "signals", lambda: fault_scenarios.signals(site, evaluating, [1])
        for name in injected_faults.FAULTS:
            yield "faults", lambda name=name: injected_faults.fault(site, name, pair)
        return
    for layout in fault_scenarios.LAYOUTS:
        yield "kills", lambda layout=layout: fault_scenarios.kills(site, layout, flags.kills)
    for layout in (pair, zero2, zero3, fsdp):
        for rank in (0, 1):
            yield "kills", lambda layout=layout, rank=rank: fault_scenarios.kill_of_one(site, layout, rank)
    yield "saving", lambda: fault_scenarios.kills_while_saving(site, flags.kills_while_saving)
    yield from damages(site, damaged_checkpoints.DAMAGES)
    ranks_of = (
        (fsdp, [1]),
        (single, [0]),
        (pair, [0]),
        (pair, [1]),
        (pair, [0, 1]),
        (evaluating, [1]),
        (zero2, [0]),
        (zero3, [1]),
    )
    for layout, ranks in ranks_of:
        yield "signals", lambda layout=layout, ranks=ranks: fault_scenarios.signals(site, layout, ranks)
    for name in injected_faults.FAULTS:
        for layout in (single, pair, zero2, zero3, fsdp):
            if not (name == "a rank hangs" and layout == single):
                yield "faults", lambda name=name, layout=layout: injected_faults.fault(site, name, layout)


def damages(site: fault_scenarios.Site, resumed: Container[str]) -> Iterator[tuple[str, Scenario]]:
    """Every kind of damage to checkpoints; after those of `resumed` the run is resumed and compared."""
    for name in damaged_checkpoints.DAMAGES:
        yield "damage", lambda name=name: damaged_checkpoints.damage_newest(site, name, name in resumed)


if __name__ == "__main__":
    run_command(main)
