"""The report of result files: reads them, has its parts made, and writes them as Markdown, LaTeX, HTML and files."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import MANIFEST, read_manifest, sha256_file, write_atomically, write_json
from open_r1.common.errors import UserError
from open_r1.common.markdown_text import markdown_image, markdown_table, markdown_text
from open_r1.evaluation.comparing.matrices import accuracy_matrices, difference_matrices
from open_r1.evaluation.comparing.pairs import Comparison, pair_up, pair_with_base
from open_r1.evaluation.comparing.run_names import named_apart, set_names
from open_r1.evaluation.comparing.scored_runs import LENIENT, Marks, Scored, all_marks, disjoint, load
from open_r1.evaluation.reporting.curves import curves_figure, read_log
from open_r1.evaluation.reporting.heatmaps import rendered
from open_r1.evaluation.reporting.html.page import OPEN_RUNS, page, short_value
from open_r1.evaluation.reporting.item_browser import Browser, browser
from open_r1.evaluation.reporting.sections.differences import comparison_section, improvement_section, stem_of
from open_r1.evaluation.reporting.sections.matrices import matrix_section
from open_r1.evaluation.reporting.sections.ranking import standings
from open_r1.evaluation.reporting.sections.section import Section, guide, marked
from open_r1.evaluation.reporting.sections.single_run import run_section
from open_r1.evaluation.reporting.sections.text_benchmarks import Benchmarks, benchmark_section, line_up
from open_r1.evaluation.reporting.sections.whole_study import overview
from open_r1.evaluation.reporting.table_formats import csv_with, latex, markdown
from open_r1.evaluation.scoring.results import published_form
from open_r1.evaluation.scoring.tallies import only_text
from open_r1.vocabulary.labels import family_of

IMAGE_BYTES = 8 * 2**20
"""How much of report.html small images may take, unless it is said otherwise."""
QUESTIONS = 1000
"""How many questions the page of an overview shows with their answers, unless it is said otherwise."""
OVERLAID = 10
"""How many training curves are drawn into one image: as many as there are colours."""
GRADERS = ("stored", "huatuo")
"""Whose judgement a report counts: that of eval/infer.py, or HuatuoGPT-o1's lenient matching."""


def write_report(
    paths: Sequence[Path],
    output_dir: Path,
    against: Sequence[Path] = (),
    image_root: Path | None = None,
    image_bytes: int = IMAGE_BYTES,
    grader: str = "stored",
    with_items: bool = False,
) -> str:
    """Write the report of some result files and return its summary (Markdown) without how each was measured.

    Of many files the tables of each are not in what is returned, only what says something about them together.

    Args:
        paths: the result files.
        output_dir: folder for the report.
        against: result files that the others are compared with. Without them two files are compared with each other.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: how much of the page small images may take.
        grader: one of GRADERS; the result files are not changed.
        with_items: put every question with its answers and a small image into the page. They may say who a patient
            is, so a page that is passed on does not hold them.

    Raises:
        UserError: a result file cannot be used, or the folder holds files that are no report of ours.
    """
    if grader not in GRADERS:
        raise UserError(f"there is no --grader {grader!r}; choose one of {', '.join(GRADERS)}")
    scored = load(paths, against, lenient=grader == "huatuo")
    _refuse_taken(output_dir)
    own = sum(not run.is_reference for run in scored)
    text = line_up(scored, own)
    comparisons, alone = _comparisons(scored, own, text)
    folders = _folders(scored)
    sections = [*_sections(scored, own, comparisons, alone, text)]
    first = comparisons[0] if comparisons else None
    made = browser(scored, first, image_root, image_bytes) if with_items else None
    files = {
        f"{folders[one.name]}results.json": json.dumps(published_form(one.file.results) | _judge(grader), indent=2)
        + "\n"
        for one in scored
    }
    return publish(scored, sections, made, output_dir, files, grader)


def write_overview(
    paths: Sequence[Path],
    output_dir: Path,
    image_root: Path | None = None,
    image_bytes: int = IMAGE_BYTES,
    questions: int = QUESTIONS,
    with_items: bool = False,
) -> str:
    """Write the report of a whole study: what its result files say together, every comparison that they offer.

    Args:
        paths: the result files.
        output_dir: folder for the report.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: how much of the page small images may take.
        questions: how many questions the page shows with all answers, the most telling ones.
        with_items: whether it shows any, as `write_report`.

    Raises:
        UserError: as `write_report`.
    """
    scored = load(paths)
    _refuse_taken(output_dir)
    comparisons, sections = overview(scored)
    sections += _curves(scored)
    first = comparisons[0] if comparisons else None
    made = browser(scored, first, image_root, image_bytes, questions) if with_items else None
    return publish(scored, sections, made, output_dir)


def publish(
    scored: Sequence[Scored],
    sections: Sequence[Section],
    made: Browser | None,
    output_dir: Path,
    files: Mapping[str, str] | None = None,
    grader: str = "stored",
) -> str:
    """Write a report in all its forms; returns its summary (Markdown) without how each file was measured.

    Args:
        scored: the result files it is about.
        sections: what it says.
        made: its questions and answers; None leaves them out.
        output_dir: folder for the report.
        files: more files for it, by their path there.
        grader: whose judgement counts.

    Raises:
        UserError: the folder holds files that are no report of ours, or the disk refuses.
    """
    sections = [*sections, guide(sections)]
    title = marked("Accuracy", tuple(mark for mark in all_marks(scored) if mark == LENIENT))
    summary = _summary(title, sections)
    measured = {
        name: file.manifest | _judge(grader)
        for one in scored
        for name, file in zip(_file_names(one), one.files, strict=True)
    }
    written, drawn = _Folder(output_dir), {}
    for section in sections:
        for leaf, content in section.files.items():
            written.add(leaf, content if grader == "stored" else csv_with(content, "grader", grader))
        for stem, figure in section.figures.items():
            drawn[stem] = rendered(figure, "svg")
            written.add(f"{stem}.svg", drawn[stem])
            written.add(f"{stem}.png", rendered(figure, "png"))
    for leaf, content in (files or {}).items():
        written.add(leaf, content)
    written.add("summary.md", "\n".join([summary, *(_measured(name, entry) for name, entry in measured.items())]))
    tables = [latex(sheet) for section in sections for sheet in section.sheets]
    written.add("tables.tex", "\n".join([*(f"% {text}" for text in sections[-1].texts), *tables]))
    written.add("report.html", page(title, sections, drawn, made, measured))
    written.finish({str(file.path): sha256_file(file.path) for one in scored for file in one.files}, grader)
    if len(scored) <= OPEN_RUNS:
        return summary
    return _summary(title, [section for section in sections if not section.single])


def _judge(grader: str) -> dict[str, str]:
    """What says whose judgement counts, where it is not the stored one."""
    return {} if grader == "stored" else {"grader": grader}


def _folders(scored: Sequence[Scored]) -> dict[str, str]:
    """Where the files about each run lie in the report, by its name: in its folder, of a single run in the report's."""
    if len(scored) == 1:
        return {scored[0].name: ""}
    names = [one.name if len(one.files) == 1 else stem_of(one.name) for one in scored]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, 1)]
    return {one.name: f"{name}/" for one, name in zip(scored, names, strict=True)}


def _file_names(one: Scored) -> list[str]:
    """What each result file of a run is called where it is described."""
    return [one.name] if len(one.files) == 1 else [f"{one.name}: {name}" for name in set_names(one.files)]


def _comparisons(scored: Sequence[Scored], own: int, text: Benchmarks | None) -> tuple[list[Comparison], list[Scored]]:
    """What is compared with what, and the files that have no counterpart; the first `own` files are those to report."""
    second, first = scored[:own], scored[own:]
    if not first:
        if own == 2 and not (second[0].run == second[1].run and disjoint(second)):
            return [Comparison(second[0], second[1])], []
        return pair_with_base(second), []
    comparisons, alone = pair_up(first, second)
    if not comparisons and not (text and text.gaps):
        raise UserError(
            f"no file has a counterpart with the same questions among those of --against ({first[0].name}, ...), "
            "so nothing can be compared; name runs on the same data"
        )
    return comparisons, alone


def _sections(
    scored: Sequence[Scored],
    own: int,
    comparisons: Sequence[Comparison],
    alone: Sequence[Scored],
    text: Benchmarks | None,
) -> Iterable[Section]:
    """Tables of all runs, comparisons and matrices first, then each run, then the curves of training."""
    marks = all_marks(scored)
    yield standings(scored, comparisons)
    if text is not None:
        yield benchmark_section(text)
    yield from _improvements(comparisons, alone, marks)
    for matrix in accuracy_matrices(scored[:own]):
        yield matrix_section(matrix, marks)
    folders = _folders(scored)
    for one in scored:
        yield run_section(one, folders[one.name])
    yield from _curves(scored)


def _improvements(comparisons: Sequence[Comparison], alone: Sequence[Scored], marks: Marks) -> Iterable[Section]:
    """The difference maps, and the comparisons that neither they nor the table of text sets hold."""
    matrices = difference_matrices(comparisons)
    for matrix in matrices:
        what = f"{_what(comparisons)}, on the same questions"
        section = improvement_section(matrix, what, marks)
        names = [one.name for one in alone] + [name for comparison in comparisons for name in comparison.left_out]
        if names:
            section.texts.append(f"Left out, without a counterpart on the same questions: {', '.join(names)}.")
        yield section
    mapped = {matrix.family for matrix in matrices}
    for number, comparison in enumerate(comparisons, 1):
        trained = comparison.second.trained_on
        family = None if trained is None else family_of(trained)
        if len(comparisons) > 1 and family in mapped and comparison.second.families == {family}:
            continue
        if len(comparisons) > 1 and only_text(comparison.pairs):
            continue
        yield comparison_section(comparison, "difference" if len(comparisons) == 1 else f"difference_{number}")


def _what(comparisons: Sequence[Comparison]) -> str:
    """What is subtracted from what: the modes or the methods, where each side has one and they differ."""
    for key in ("mode", "method"):
        sides = [
            {one.file.manifest.get(key) for one in side}
            for side in zip(*((each.second, each.first) for each in comparisons), strict=True)
        ]
        if all(len(names) == 1 and None not in names for names in sides) and sides[0] != sides[1]:
            return f"{sides[0].pop()} minus {sides[1].pop()} ({len(comparisons)} pairs of runs)"
    return f"{len(comparisons)} runs minus their counterparts of --against"


def _curves(scored: Sequence[Scored]) -> Iterable[Section]:
    """The training curves of the runs that lie on this machine, overlaid; many runs by how they were trained."""
    runs = {Path(run): one for one in scored if (run := one.file.manifest.get("run_dir"))}
    if not runs:
        return
    section, together = Section("Training curves"), defaultdict(dict)
    names = named_apart([folder.resolve() for folder in runs])
    for (folder, one), name in zip(runs.items(), names, strict=True):
        try:
            together[_trained_how(one) if len(runs) > OVERLAID else ""][name] = read_log(folder)
        except UserError as error:
            section.texts.append(f"Not drawn: {error}.")
    for how, logs in together.items():
        for place in range(0, len(logs), OVERLAID):
            figure = curves_figure(dict(list(logs.items())[place : place + OVERLAID]), how)
            if figure is not None:
                section.figures["_".join(filter(None, ["curves", stem_of(how), str(place // OVERLAID or "")]))] = figure
    yield section


def _trained_how(one: Scored) -> str:
    manifest = one.file.manifest
    how = f"{manifest.get('method') or 'training'} ({manifest.get('mode')})"
    return f"{how}, by {family_of(one.trained_on)}" if one.trained_on else how


def _summary(title: str, sections: Sequence[Section]) -> str:
    return f"# {markdown_text(title)}\n\n" + "\n".join(map(_markdown, sections))


def _markdown(section: Section) -> str:
    parts = [f"## {markdown_text(section.title)}\n"]
    parts += [f"**{markdown_text(text)}**\n" for text in section.warnings]
    parts += [f"{markdown_text(text)}\n" for text in section.texts] + [markdown(sheet) for sheet in section.sheets]
    parts += [f"{markdown_image(section.title, f'{stem}.png')}\n" for stem in section.figures]
    return "\n".join(parts)


def _measured(name: str, manifest: Mapping[str, Any]) -> str:
    rows = [[key, short_value(value)] for key, value in manifest.items()]
    return f"## {markdown_text(f'How {name} was measured')}\n\n{markdown_table(['', ''], rows)}"


# ----------------------------------------------------------------------------------------------------- output


def _refuse_taken(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"{output_dir} is a file; --output_dir must be a folder")


class _Folder:
    """The files of a report: all are made before one is written, and none is written over what is not ours."""

    def __init__(self, path: Path):
        self._path = path
        self._content: dict[str, str | bytes] = {}

    def add(self, leaf: str, data: str | bytes) -> None:
        assert leaf not in self._content, f"two parts of the report are called {leaf}"
        self._content[leaf] = data

    def finish(self, sources: Mapping[str, str], grader: str) -> None:
        """Write everything, the list of it last, with the sources' hashes and who judged them."""
        self._refuse_foreign()
        for leaf, data in self._content.items():
            text = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
            write_atomically(self._path / leaf, text)
        write_json(self._path / MANIFEST, {"report": sorted(self._content), "results": dict(sources), "grader": grader})

    def _refuse_foreign(self) -> None:
        """Refuse to write over anything but an earlier report; other files may lie beside it."""
        try:
            ours = set((read_manifest(self._path) or {})["report"]) | {MANIFEST}
        except (KeyError, TypeError):
            ours = set()
        for leaf in (*self._content, MANIFEST):
            if leaf not in ours and (self._path / leaf).exists():
                raise UserError(
                    f"{self._path / leaf} exists and is no report of ours, it would be overwritten; "
                    "choose another --output_dir"
                )
