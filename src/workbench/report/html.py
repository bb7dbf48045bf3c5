"""The report of an experiment: pages that can be mailed, with zero outside requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from workbench.core.errors import ConfigError
from workbench.core.identity import text_id
from workbench.report.blocks import Finding, Page, Text
from workbench.report.document import Frame, code_hash, document
from workbench.report.evidence import NOTEBOOKS, Evidence, read_evidence
from workbench.report.notebooks import notebook_file, notebook_page, notebooks_page, read_notebooks
from workbench.report.pages import campaign, cost, data, frontier, risk, scaling, story
from workbench.store.artifacts import write_atomic
from workbench.store.database import Store

__all__ = ["CHAPTERS", "build_page", "first_finding", "render"]

_STAMP = ".inputs"
CHAPTERS: Mapping[str, tuple[Callable[[Evidence], Page | None], tuple[str, ...]]] = {
    "data": (data.page, ("pairs",)),
    "scaling": (scaling.page, ("training", "laws")),
    "frontier": (frontier.page, ("training", "sanitizer")),
    "campaign": (campaign.page, ("test_set", "execution", "analysis")),
    "risk": (risk.page, ("assessment",)),
    "cost": (cost.page, ("cost", "ablation")),
}
"""Name of a page → what builds it, and the kinds of results that it is made from."""
_HEADLINES = ("campaign", "risk", "frontier", "scaling", "cost")
"""Pages whose findings open the first page, in this order."""
_OURS = re.compile(r"notebook(s|-[0-9a-f]{12})\.html")


def render(
    store: Store,
    experiment: str,
    folder: Path,
    *,
    single_file: bool = False,
    notebooks: bool = False,
) -> Path:
    """Return the report's ``index.html``; writes the pages unless nothing changed since.

    The experiment may be unfinished.

    Args:
        store: Where it ran.
        experiment: Its name.
        folder: Where the pages go.
        single_file: Everything in one file instead of a page per chapter.
        notebooks: Also the executed notebooks, each a page of its own.

    Raises:
        ConfigError: If the experiment never ran, or a single file is to hold notebooks.
        StoreError: If the pages cannot be written.
    """
    if single_file and notebooks:
        raise ConfigError("notebooks are pages of their own; ask for a folder, or leave them out")
    evidence = read_evidence(store, experiment)
    books = read_notebooks(evidence) if notebooks else {}
    index, stamp = folder / "index.html", folder / _STAMP
    # what has finished, or no experiment file planned, has no other chapters to come
    may_come = evidence.file and evidence.state != "succeeded"
    titles = [
        name
        for name, (_, kinds) in CHAPTERS.items()
        if may_come or any(evidence.last(kind) for kind in kinds)
    ]
    names = {"index", *([] if single_file else titles), *["notebooks"] * notebooks}
    names |= {notebook_file(run) for run in books}
    hashes = [text_id(run, text) for run, text in books.items()]
    key = text_id(evidence.fingerprint(), code_hash(), str(single_file), str(notebooks), *hashes)
    whole = [stamp, *(folder / f"{name}.html" for name in names)]
    if all(path.is_file() for path in whole) and stamp.read_text(encoding="utf-8") == key:
        return index
    stamp.unlink(missing_ok=True)
    chapters = [build_page(name, evidence) for name in titles]
    pages = [story.page(evidence, chapters, books={run: notebook_file(run) for run in books})]
    pages += [*chapters, *([notebooks_page(evidence, books)] if notebooks else [])]
    for name, content in _write(pages, evidence, books, single_file=single_file).items():
        write_atomic(folder / f"{name}.html", content)
    stale = {*CHAPTERS, *(path.stem for path in folder.iterdir() if _OURS.fullmatch(path.name))}
    for name in stale - names:
        (folder / f"{name}.html").unlink(missing_ok=True)
    write_atomic(stamp, key.encode())
    return index


def build_page(name: str, evidence: Evidence) -> Page:
    """Return a page of :data:`CHAPTERS`; where it has nothing to show it says why."""
    build, kinds = CHAPTERS[name]
    try:
        if page := build(evidence):
            return page
        books = " and ".join(dict.fromkeys(NOTEBOOKS[one] for one in kinds if one in NOTEBOOKS))
        words = f"Nothing here yet. Notebook {books} fills this page; the run table says how far"
        words += " it is."
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        words = f"A result of kind {', '.join(kinds)} is not as this version writes it"
        words += f" ({type(error).__name__}: {error}); run its step again."
    return Page(name=name, notes=[Text(words, is_note=True)])


def first_finding(evidence: Evidence) -> Finding | None:
    """Return the finding that an experiment's first page opens with."""
    for name in _HEADLINES:
        if any(evidence.last(kind) for kind in CHAPTERS[name][1]):
            finding = build_page(name, evidence).finding
            if finding:
                return finding
    return None


def _write(
    pages: Sequence[Page], evidence: Evidence, books: Mapping[str, str], *, single_file: bool
) -> dict[str, bytes]:
    groups = {"index": list(pages)} if single_file else {page.name: [page] for page in pages}
    links = {page.name: f"#{page.name}" if single_file else f"{page.name}.html" for page in pages}
    found = {page.name: page.finding for page in pages if page.finding}
    finished = max((run.finished_at for run in evidence.runs), default="")
    made = f"Experiment file {evidence.file}" if evidence.file else "Made by hand"
    ended = f"last run ended {finished[:19].replace('T', ' ')} UTC"
    frame = Frame(
        title=evidence.experiment,
        state=evidence.state,
        heading="What {} found",
        links=[(links[page.name], page) for page in pages],
        findings=[(links[one], found[one]) for one in _HEADLINES if one in found],
        footer=[made, *[ended] * bool(finished), "measured here unless marked assumed or claimed"],
    )
    written = {name: document(name, group, frame) for name, group in groups.items()}
    runs = {run.id: run for run in evidence.runs}
    for run, text in books.items():
        page = notebook_page(runs[run], text)
        written[page.name] = document("notebooks", [page], frame)
    return written
