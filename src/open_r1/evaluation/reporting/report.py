"""The report of result files as Markdown, LaTeX, HTML, CSV files and images."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import MANIFEST, read_manifest, sha256_file, write_atomically, write_json
from open_r1.common.errors import UserError
from open_r1.common.markdown_text import markdown_image, markdown_table, markdown_text
from open_r1.data.overlap.clusters import read_clusters
from open_r1.drawing.rendering import rendered
from open_r1.drawing.training_curves import curves_figure, read_log
from open_r1.evaluation.comparing.changed_runs import changes
from open_r1.evaluation.comparing.run_names import named_apart, set_names
from open_r1.evaluation.comparing.scored_runs import LENIENT, Scored, all_marks, load
from open_r1.evaluation.reporting.html.page import OPEN_RUNS, page
from open_r1.evaluation.reporting.html.rendering import short_value
from open_r1.evaluation.reporting.items.browser import Browser, build_browser
from open_r1.evaluation.reporting.published_form import published_form, published_text
from open_r1.evaluation.reporting.review.lengths import lengths_section
from open_r1.evaluation.reporting.review.letters import letters_section
from open_r1.evaluation.reporting.review.unparsed import unparsed_section
from open_r1.evaluation.reporting.run_sections import choose_comparisons, report_folders, sections_of_runs
from open_r1.evaluation.reporting.sections.differences import stem_of
from open_r1.evaluation.reporting.sections.free_answers import FILES as FREE_FILES
from open_r1.evaluation.reporting.sections.free_answers import free_sections
from open_r1.evaluation.reporting.sections.headline import report_title
from open_r1.evaluation.reporting.sections.judged import FILES as JUDGED_FILES
from open_r1.evaluation.reporting.sections.judged import judged_section
from open_r1.evaluation.reporting.sections.section import Section, marked, reading_guide
from open_r1.evaluation.reporting.sections.text_benchmarks import benchmarks_of
from open_r1.evaluation.reporting.sections.whole_study import study_sections
from open_r1.evaluation.reporting.table_formats import csv_with, latex, markdown
from open_r1.grading.judge.judgements import Judge
from open_r1.vocabulary.labels import family_of

_OWN_GRADES = {*FREE_FILES, *JUDGED_FILES}  # files that --grader does not change
IMAGE_BYTES = 8 * 2**20
"""Default limit for the small images in report.html together."""
QUESTIONS = 1000
"""Default number of questions that the page of an overview shows with their answers."""
OVERLAID = 10
"""How many runs one image of training curves shows: as many as there are colours."""
GRADERS = ("stored", "huatuo")
"""Where the grades of a report come from: stored by eval/infer.py, or HuatuoGPT-o1's lenient matching."""


def write_report(
    paths: Sequence[Path],
    output_dir: Path,
    against: Sequence[Path] = (),
    image_root: Path | None = None,
    image_bytes: int = IMAGE_BYTES,
    grader: str = "stored",
    with_items: bool = False,
    judge: Judge | None = None,
    baseline: Path | None = None,
    clusters: Path | None = None,
) -> str:
    """Write the report of some result files and return its summary (Markdown) without the manifests.

    Of many files the returned summary leaves out the sections about single files.

    Args:
        paths: the result files.
        output_dir: folder for the report.
        against: result files to compare the others with. Without them two files are compared with each other.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: limit for the small images in the page together.
        grader: one of GRADERS; the result files are not changed.
        with_items: put every question with its answers and a small image into the page. They may identify a patient;
            leave them out of a page that is passed on.
        judge: a model that is asked about the answers to closed and open questions; None for none.
        baseline: the result file among `paths` whose run every other on the same questions is compared with. Without
            one: the untrained run in the same mode, or else the first.
        clusters: file of `eval/overlap.py --write_clusters`: errors count clusters of nearly equal images.

    Raises:
        UserError: a result file cannot be used, or the folder holds files that are not from an earlier report.
    """
    if grader not in GRADERS:
        raise UserError(f"--grader {grader!r} does not exist; choose one of {', '.join(GRADERS)}")
    by_id = None if clusters is None else read_clusters(clusters)
    scored = load(paths, against, lenient=grader == "huatuo", clusters=by_id)
    _refuse_file(output_dir)
    choice = [run for run in scored if run.table]
    reported = sum(not run.is_reference for run in choice)
    text = benchmarks_of(choice, reported)
    changed = changes(choice)
    comparisons, alone = choose_comparisons(choice, reported, text, changed, baseline) if choice else ([], [])
    folders = report_folders(scored)
    sections = [*sections_of_runs(choice, reported, comparisons, alone, text, changed, with_items)] if choice else []
    judged = None if judge is None else judged_section(scored, judge)
    sections[1:1] = [*free_sections(scored), *filter(None, [judged])]
    sections += _curves(scored)
    _say_clusters(sections, clusters)
    first_comparison = next(iter([*comparisons, *(change.comparison for change in changed)]), None)
    item_browser = None
    if with_items:
        item_browser = build_browser(scored, first_comparison, image_root, image_bytes, changed=changed)
    files = {
        f"{folders[run.name]}results.json": published_text(published_form(run.file.results) | _grader_entry(grader))
        for run in choice
    }
    return publish(scored, sections, item_browser, output_dir, files, grader)


def write_overview(
    paths: Sequence[Path],
    output_dir: Path,
    image_root: Path | None = None,
    image_bytes: int = IMAGE_BYTES,
    questions: int = QUESTIONS,
    with_items: bool = False,
    clusters: Path | None = None,
) -> str:
    """Write the report of a whole study: tables over all result files and every possible comparison.

    Args:
        paths: the result files.
        output_dir: folder for the report.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: limit for the small images in the page together.
        questions: limit for the questions in the page; those that runs disagree about come first.
        with_items: put questions into the page, as in `write_report`.
        clusters: as in `write_report`.

    Raises:
        UserError: as `write_report`.
    """
    scored = load(paths, clusters=None if clusters is None else read_clusters(clusters))
    _refuse_file(output_dir)
    choice = [run for run in scored if run.table]
    comparisons, sections = study_sections(choice)
    # what a reviewer asks, as far as it is a row for each run: maps and pairs of so many runs nobody looks through
    review = [letters_section(choice), lengths_section(choice), unparsed_section(choice, with_items)] if choice else []
    for section in filter(None, review):
        section.folded = True
        sections.append(section)
    sections += [*free_sections(scored), *_curves(scored)]
    _say_clusters(sections, clusters)
    first_comparison = comparisons[0] if comparisons else None
    item_browser = None
    if with_items:
        item_browser = build_browser(
            scored, first_comparison, image_root, image_bytes, questions, changed=changes(choice)
        )
    return publish(scored, sections, item_browser, output_dir)


def _say_clusters(sections: Sequence[Section], clusters: Path | None) -> None:
    """Say in the first section by what errors are clustered, unless it is images."""
    if clusters is not None and sections:
        sections[0].texts.append(
            f"Standard errors, intervals and tests count clusters of nearly equal images ({clusters}), not images."
        )


def publish(
    scored: Sequence[Scored],
    sections: Sequence[Section],
    item_browser: Browser | None,
    output_dir: Path,
    files: Mapping[str, str] | None = None,
    grader: str = "stored",
) -> str:
    """Write a report in all its forms; returns its summary (Markdown) without the manifests.

    Args:
        scored: the result files it is about.
        sections: its texts, tables and figures.
        item_browser: its questions and answers; None leaves them out.
        output_dir: folder for the report.
        files: content of further files, by their path in the folder.
        grader: one of GRADERS.

    Raises:
        UserError: the folder holds files that are not from an earlier report, or cannot be written.
    """
    sections = [*sections, reading_guide(sections)]
    title = marked(report_title([run for run in scored if run.table]), tuple(set(all_marks(scored)) & {LENIENT}))
    summary = _summary(title, sections)
    measured = {
        name: file.manifest | _grader_entry(grader)
        for run in scored
        for name, file in zip(_file_names(run), run.files, strict=True)
    }
    written, drawn = _Folder(output_dir), {}
    for section in sections:
        for leaf, content in section.files.items():
            written.add(
                leaf, content if grader == "stored" or leaf in _OWN_GRADES else csv_with(content, "grader", grader)
            )
        for stem, figure in section.figures.items():
            drawn[stem] = rendered(figure, "svg")
            written.add(f"{stem}.svg", drawn[stem])
            written.add(f"{stem}.png", rendered(figure, "png"))
    for leaf, content in (files or {}).items():
        written.add(leaf, content)
    written.add("summary.md", "\n".join([summary, *(_provenance(name, entry) for name, entry in measured.items())]))
    tables = [latex(sheet) for section in sections for sheet in section.sheets]
    written.add("tables.tex", "\n".join([*(f"% {text}" for text in sections[-1].texts), *tables]))
    written.add("report.html", page(title, sections, drawn, item_browser, measured))
    written.finish({str(file.path): sha256_file(file.path) for run in scored for file in run.files}, grader)
    if len(scored) <= OPEN_RUNS:
        return summary
    return _summary(title, [section for section in sections if not section.single])


def _grader_entry(grader: str) -> dict[str, str]:
    """The manifest entry about the grader, if it is not the stored one."""
    return {} if grader == "stored" else {"grader": grader}


def _file_names(run: Scored) -> list[str]:
    """The name of each result file of a run in the section about manifests."""
    return [run.name] if len(run.files) == 1 else [f"{run.name}: {name}" for name in set_names(run.files)]


def _curves(scored: Sequence[Scored]) -> Iterable[Section]:
    """The training curves of the runs whose folder is on this machine, overlaid; many runs are grouped by method."""
    runs = {Path(folder): run for run in scored if (folder := run.file.manifest.get("run_dir"))}
    if not runs:
        return
    section, groups = Section("Training curves"), defaultdict(dict)
    names = named_apart([folder.resolve() for folder in runs])
    for (folder, run), name in zip(runs.items(), names, strict=True):
        try:
            groups[_training_group(run) if len(runs) > OVERLAID else ""][name] = read_log(folder)
        except UserError as error:
            section.texts.append(f"Not drawn: {error}.")
    for title, logs in groups.items():
        for place in range(0, len(logs), OVERLAID):
            figure = curves_figure(dict(list(logs.items())[place : place + OVERLAID]), title)
            if figure is not None:
                stem = "_".join(filter(None, ["curves", stem_of(title), str(place // OVERLAID or "")]))
                section.figures[stem] = figure
    yield section


def _training_group(run: Scored) -> str:
    manifest = run.file.manifest
    how = f"{manifest.get('method') or 'training'} ({manifest.get('mode')})"
    return f"{how}, by {family_of(run.trained_on)}" if run.trained_on else how


def _summary(title: str, sections: Sequence[Section]) -> str:
    return f"# {markdown_text(title)}\n\n" + "\n".join(map(_markdown, sections))


def _markdown(section: Section) -> str:
    paragraphs = [f"## {markdown_text(section.title)}\n"]
    paragraphs += [f"**{markdown_text(text)}**\n" for text in section.warnings]
    paragraphs += [f"{markdown_text(text)}\n" for text in section.texts]
    paragraphs += [f"{markdown_image(section.title, f'{stem}.png')}\n" for stem in section.figures]
    paragraphs += [markdown(sheet) for sheet in section.sheets]
    return "\n".join(paragraphs)


def _provenance(name: str, manifest: Mapping[str, Any]) -> str:
    rows = [[key, short_value(value)] for key, value in manifest.items()]
    return f"## {markdown_text(f'How {name} was measured')}\n\n{markdown_table(['', ''], rows)}"


def _refuse_file(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"{output_dir} is a file; --output_dir must be a folder")


class _Folder:
    """The files of a report, all prepared before the first is written. Only an earlier report is overwritten."""

    def __init__(self, path: Path):
        self._path = path
        self._content: dict[str, str | bytes] = {}

    def add(self, leaf: str, data: str | bytes) -> None:
        assert leaf not in self._content, f"two files of the report are called {leaf}"
        self._content[leaf] = data

    def finish(self, sources: Mapping[str, str], grader: str) -> None:
        """Write all files, then the manifest with their names, the hashes of the result files and the grader."""
        self._refuse_foreign()
        for leaf, data in self._content.items():
            text = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
            write_atomically(self._path / leaf, text)
        write_json(self._path / MANIFEST, {"report": sorted(self._content), "results": dict(sources), "grader": grader})

    def _refuse_foreign(self) -> None:
        """Refuse to overwrite anything but an earlier report; other files may be in the folder."""
        try:
            ours = set((read_manifest(self._path) or {})["report"]) | {MANIFEST}
        except (KeyError, TypeError):
            ours = set()
        for leaf in (*self._content, MANIFEST):
            if leaf not in ours and (self._path / leaf).exists():
                raise UserError(
                    f"{self._path / leaf} exists, is not from an earlier report and would be overwritten; "
                    "choose another --output_dir"
                )
