"""The report of one or several result files: which tables, pictures and texts it has, and what its summary says."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.heatmaps import accuracy_heatmap, difference_heatmap, picture
from open_r1.evaluation.score import ResultFile, published_form, read_results
from open_r1.evaluation.statistics import Difference
from open_r1.evaluation.tables import (
    ALL,
    Cell,
    Table,
    averages,
    compare,
    csv_by_both,
    csv_by_modality,
    csv_by_task,
    csv_of_differences,
    markdown_by_both,
    markdown_table,
    named_apart,
    percent,
    tabulate,
    with_error,
)
from open_r1.files import MANIFEST, sha256_file, write_atomically, write_json

Files = dict[str, str | bytes]  # path below the output folder -> content


def write_report(paths: Sequence[Path], output_dir: Path) -> str:
    """Write the report of some result files and return its summary (Markdown) without how each was measured.

    Raises:
        UserError: a result file cannot be used, or the folder holds files that are no report of ours.
    """
    files = [read_results(path) for path in paths]
    names = named_apart(paths)
    sections, measured, content = [], [], Files()
    for name, file in zip(names, files, strict=True):
        table = tabulate(file.results)
        folder = f"{name}/" if len(files) > 1 else ""
        content |= {folder + leaf: data for leaf, data in _report_files(name, file, table).items()}
        sections.append(_section(name, file, table))
        measured.append(_measured(name, file))
    if len(files) == 2:
        differences = compare(files[0].results, files[1].results)
        content |= _difference_files(names, differences)
        sections.append(_difference_section(names, files, differences))
    summary = "# Accuracy\n\n" + "\n".join(sections)
    content["summary.md"] = "\n".join([summary, *measured])
    _refuse_foreign(output_dir, content)
    for leaf, data in content.items():
        write_atomically(output_dir / leaf, data)
    sources = {str(path): sha256_file(path) for path in paths}
    write_json(output_dir / MANIFEST, {"report": sorted(content), "results": sources})
    return summary


def _refuse_foreign(output_dir: Path, content: Mapping[str, Any]) -> None:
    """Refuse to write over anything but an earlier report; other files may lie beside it."""
    try:
        ours = set(json.loads((output_dir / MANIFEST).read_text(encoding="utf-8"))["report"]) | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    taken = [leaf for leaf in [*content, MANIFEST] if leaf not in ours and (output_dir / leaf).exists()]
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"{output_dir} is a file; --output_dir must be a folder")
    if taken:
        raise UserError(
            f"{output_dir / taken[0]} exists and is no report of ours, it would be overwritten; "
            "choose another --output_dir"
        )


def _report_files(name: str, file: ResultFile, table: Table) -> Files:
    lines = [f"{average.name} {with_error(average.mean, average.stderr)}" for average in averages(table)]
    figure = accuracy_heatmap(table, f"Accuracy: {name}", "; ".join(lines))
    return {
        "by_modality.csv": csv_by_modality(table),
        "by_task.csv": csv_by_task(table),
        "by_modality_and_task.csv": csv_by_both(table),
        "heatmap.png": picture(figure, "png"),
        "heatmap.svg": picture(figure, "svg"),
        "results.json": json.dumps(published_form(file.results), indent=2, ensure_ascii=True) + "\n",
    }


def _difference_files(names: Sequence[str], differences: Mapping[Cell, Difference]) -> Files:
    note = f"{names[1]} minus {names[0]}, {differences[ALL, ALL].n:,} questions that both answered"
    figure = difference_heatmap(differences, "Improvement on each modality / task", note)
    return {
        "difference.csv": csv_of_differences(differences),
        "difference.png": picture(figure, "png"),
        "difference.svg": picture(figure, "svg"),
    }


# ---------------------------------------------------------------------------------------------------- summary


def _section(name: str, file: ResultFile, table: Table) -> str:
    whole = table[ALL, ALL]
    rows = [[average.name, with_error(average.mean, average.stderr)] for average in averages(table)]
    rows.append(["uniform guessing", percent(whole.chance, 1)])
    rows.append(["answers that could not be read (unparsed)", percent(whole.unparsed, 1)])
    parts = [
        f"## {name}\n",
        markdown_table(["", "per cent"], rows),
        *_warnings(file, whole.unreadable, whole.n),
        "Accuracy ± standard error clustered by picture, in per cent (number of questions):\n",
        markdown_by_both(table),
    ]
    return "\n".join(parts)


def _measured(name: str, file: ResultFile) -> str:
    rows = [[key, _short(value)] for key, value in file.manifest.items()]
    return f"## How {name} was measured\n\n{markdown_table(['', ''], rows)}"


def _warnings(file: ResultFile, unreadable: int, asked: int) -> list[str]:
    found = []
    if not asked:
        found.append("**No question could be asked.**\n")
    if unreadable:
        found.append(
            f"**{unreadable:,} questions were not asked** (unreadable picture or the like) and count nowhere.\n"
        )
    if file.missing:
        found.append(f"**{file.missing:,} questions have no result yet**: the run is not finished.\n")
    if file.torn:
        found.append("**The last line is unfinished** and was left out: the run was stopped while writing it.\n")
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:297] + "..."


def _difference_section(
    names: Sequence[str], files: Sequence[ResultFile], differences: Mapping[Cell, Difference]
) -> str:
    found = differences[ALL, ALL]
    error = f" ± {percent(found.stderr, 1)}" if found.stderr else ""
    alone = [len(file.results) - found.n for file in files]
    left_out = f" Left out, in one file only or not asked: {alone[0]:,} and {alone[1]:,}." if any(alone) else ""
    return (
        f"## {names[1]} minus {names[0]}\n\n"
        f"{100 * found.mean:+.1f}{error} points over {found.n:,} questions: {found.won:,} won, {found.lost:,} lost, "
        f"exact McNemar p = {found.p:.2g}.{left_out}\n"
    )
