"""One HTML document out of pages: escaped, under a policy, with everything in it.

Everything from the store is hostile text: the template escapes it, data blocks cannot end their
element, control characters are shown instead of obeyed, and the content security policy runs our
own scripts only, known by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from workbench.core.identity import file_sha256, text_id
from workbench.report.blocks import Finding, Page
from workbench.report.palette import DARK

__all__ = ["Frame", "code_hash", "document", "plotly_bytes", "visible"]

_FOLDER = Path(__file__).parent
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_IDS = re.compile(r"CVE-\d{4}-\d{4,9}|\b\d{4}-\d\d-\d\d\b")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands around the pages of a document."""

    title: str
    """Of the whole, e.g. the name of the experiment."""
    state: str = ""
    heading: str
    """Of the first page, ``{}`` where the title goes."""
    links: Sequence[tuple[str, Page]] = ()
    """Address and page of each entry of the navigation."""
    findings: Sequence[tuple[str, Finding]] = ()
    """Address and finding of each that opens the first page."""
    footer: Sequence[str] = ()
    """Parts of the line at the end."""


def document(name: str, pages: Sequence[Page], frame: Frame) -> bytes:
    """Return the document that shows these pages; ``name`` is that of the page one is on."""
    figures = sum(len(page.figures) for page in pages)
    scripts = [_plotly(), _read("boot.js")] if figures else []
    if any(page.is_sortable for page in pages):
        scripts.append(_read("sort.js"))
    html = _environment().get_template("page.html.j2").render(
        name=name,
        frame=frame,
        pages=pages,
        figures=figures,
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own files
        css=Markup(_read("theme.css")),  # noqa: S704 - our own file
        dark=_json_block(DARK),
    )  # fmt: skip
    return html.encode()


def visible(text: str) -> str:
    """Return text in which what cannot be seen is: control and direction characters and such."""
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text)


def plotly_bytes() -> int:
    """Return what the one script that draws takes of a document."""
    return len(_plotly().encode())


@cache
def code_hash() -> str:
    """Return the hash of everything that decides how a document looks."""
    files = sorted(
        path for path in _FOLDER.rglob("*") if path.suffix in {".py", ".j2", ".css", ".js"}
    )
    return text_id(*(file_sha256(path) for path in files))


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
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return visible(value) if is_text else value


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
