"""The report of an experiment: pages that can be mailed, with zero outside requests.

Everything from the store is hostile text: the template escapes it, data blocks cannot end their
element, control characters are shown instead of obeyed, and the content security policy runs our
own scripts only, known by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from workbench.core.identity import file_sha256, text_id
from workbench.report.blocks import Page, Text
from workbench.report.evidence import NOTEBOOKS, Evidence, read_evidence
from workbench.report.figures import DARK
from workbench.report.pages import campaign, cost, data, frontier, risk, scaling, story
from workbench.store.artifacts import write_atomic
from workbench.store.database import Store

__all__ = ["render"]

_FOLDER = Path(__file__).parent
_STAMP = ".inputs"
_CHAPTERS: Mapping[str, tuple[Callable[[Evidence], Page | None], tuple[str, ...]]] = {
    "data": (data.page, ("pairs",)),
    "scaling": (scaling.page, ("training", "laws")),
    "frontier": (frontier.page, ("training", "sanitizer")),
    "campaign": (campaign.page, ("test_set", "execution", "analysis")),
    "risk": (risk.page, ("assessment",)),
    "cost": (cost.page, ("cost", "ablation")),
}
_HEADLINES = ("campaign", "risk", "frontier", "scaling", "cost")
"""Pages whose findings open the first page, in this order."""
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_IDS = re.compile(r"CVE-\d{4}-\d{4,9}|\b\d{4}-\d\d-\d\d\b")


def render(store: Store, experiment: str, folder: Path, *, single_file: bool = False) -> Path:
    """Return the report's ``index.html``; writes the pages unless nothing changed since.

    The experiment may be unfinished. A single file has everything instead of a page per chapter.

    Raises:
        ConfigError: If the experiment never ran.
        StoreError: If the pages cannot be written.
    """
    evidence = read_evidence(store, experiment)
    index, stamp = folder / "index.html", folder / _STAMP
    # what has finished, or no experiment file planned, has no other chapters to come
    may_come = evidence.file and evidence.state != "succeeded"
    titles = [
        name
        for name, (_, kinds) in _CHAPTERS.items()
        if may_come or any(evidence.last(kind) for kind in kinds)
    ]
    names = {"index", *([] if single_file else titles)}
    key = text_id(evidence.fingerprint(), _code_hash(), str(single_file))
    whole = [stamp, *(folder / f"{name}.html" for name in names)]
    if all(path.is_file() for path in whole) and stamp.read_text(encoding="utf-8") == key:
        return index
    stamp.unlink(missing_ok=True)
    chapters = [_build(name, evidence) for name in titles]
    pages = [story.page(evidence, chapters), *chapters]
    for name, content in _write(pages, evidence, single_file=single_file).items():
        write_atomic(folder / f"{name}.html", content)
    for stale in {*_CHAPTERS} - names:
        (folder / f"{stale}.html").unlink(missing_ok=True)
    write_atomic(stamp, key.encode())
    return index


def _build(name: str, evidence: Evidence) -> Page:
    build, kinds = _CHAPTERS[name]
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


def _write(pages: Sequence[Page], evidence: Evidence, *, single_file: bool) -> dict[str, bytes]:
    template = _environment().get_template("page.html.j2")
    groups = {"index": list(pages)} if single_file else {page.name: [page] for page in pages}
    links = {page.name: f"#{page.name}" if single_file else f"{page.name}.html" for page in pages}
    found = {page.name: page for page in pages if page.finding}
    written = {}
    for name, group in groups.items():
        figure_count = sum(len(page.figures) for page in group)
        scripts = [_plotly(), _read("boot.js")] if figure_count else []
        if any(page.is_sortable for page in group):
            scripts.append(_read("sort.js"))
        html = template.render(
            name=name,
            evidence=evidence,
            findings=[(links[one], found[one].finding) for one in _HEADLINES if one in found],
            pages=group,
            links=[(links[page.name], page) for page in pages],
            figures=figure_count,
            policy=_policy(scripts),
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own files
            css=Markup(_read("theme.css")),  # noqa: S704 - our own file
            dark=_json_block(DARK),
            finished=max((run.finished_at for run in evidence.runs), default=""),
        )
        written[name] = html.encode()
    return written


def _policy(scripts: Sequence[str]) -> str:
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_block"] = _json_block
    environment.filters["whole"] = _whole
    return environment


def _show(value: Any) -> Any:
    """Make what cannot be seen visible: control and direction characters, half surrogates."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", value)
    return value


def _whole(text: str) -> Markup:
    """Return text whose ids of vulnerabilities and dates are not broken at their hyphens."""
    return Markup(_IDS.sub(r'<span class="whole">\g<0></span>', str(escape(_show(text)))))  # noqa: S704


def _json_block(value: Any) -> Markup:
    """Return JSON for a script element: ASCII, no ``<`` to end it or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # HTML parsing turns CR LF into LF, which would break the hash of the policy
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


@cache
def _read(name: str) -> str:
    return (_FOLDER / "templates" / name).read_text(encoding="utf-8")


@cache
def _code_hash() -> str:
    files = sorted(
        path for path in _FOLDER.rglob("*") if path.suffix in {".py", ".j2", ".css", ".js"}
    )
    return text_id(*(file_sha256(path) for path in files))
