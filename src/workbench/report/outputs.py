"""What notebooks show, made harmless: no script, no address, no name that is ours.

HTML goes through an allow-list, its style sheets rule by rule. Classes and ids get a prefix, so
that nothing takes the place of a part of the page; figures lose what could ask a server.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from markupsafe import Markup, escape

from workbench.report.palette import COLORS

__all__ = ["image", "is_calm_html", "markdown", "plain_text", "rich", "safe_figure"]

_ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")
_SELECTOR = re.compile(r"[\w\s.#:()>+~*,-]+")
_MEDIA = re.compile(r"media [\w\s():,.-]+")
_NAME = re.compile(r"([.#])(-?[_a-zA-Z][\w-]*)")
_DATA_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
_LINK = re.compile(r"<(?=\s{0,9}/?\s{0,9}a\b)", re.IGNORECASE)
_TAGS = frozenset(
    re.findall(
        r"\S+",
        "a abbr b bdi blockquote br caption code col colgroup dd del details div dl dt em "
        "figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li meter ol p pre progress q s "
        "samp section small span strong sub summary sup table tbody td tfoot th thead tr u ul "
        "var svg g path line polyline polygon circle ellipse rect text tspan",
    )
)
_ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        "aria-hidden aria-label aria-sort class colspan dir high id lang low max min open "
        "optimum role rowspan scope span start style title value cx cy d dominant-baseline dx "
        "dy fill fill-opacity font-size height opacity points preserveAspectRatio r rx ry "
        "stroke stroke-dasharray stroke-linecap stroke-opacity stroke-width text-anchor "
        "transform viewBox width x x1 x2 y y1 y2",
    )
)
_PROPERTIES = re.compile(
    r"(-?-?[a-z-]*color|background|border(-[a-z-]+)?|font(-[a-z-]+)?|text-[a-z-]+|white-space"
    r"|padding(-[a-z]+)?|margin(-[a-z]+)?|(min-|max-)?(width|height)|line-height|letter-spacing"
    r"|vertical-align|opacity|display|flex(-[a-z]+)?|grid-template-columns|(row-|column-)?gap"
    r"|align-[a-z]+|justify-[a-z]+|list-style-type|overflow(-[a-z]+)?|fill|stroke(-[a-z]+)?"
    r"|font-variant-numeric|table-layout|caption-side|empty-cells|border-spacing|--[a-z][a-z0-9-]*)"
)
_FUNCTIONS = frozenset(
    re.findall(
        r"\S+",
        "rgb rgba hsl hsla var calc linear-gradient color-mix repeat minmax min max clamp",
    )
)
_DRAWN = frozenset(
    re.findall(
        r"\S+",
        "bar barpolar box candlestick carpet contour contourcarpet funnel funnelarea heatmap "
        "histogram histogram2d histogram2dcontour icicle indicator ohlc parcats parcoords pie "
        "sankey scatter scatter3d scattercarpet scattergl scatterpolar scatterpolargl "
        "scattersmith scatterternary splom sunburst surface table treemap violin waterfall",
    )
)
_GONE = frozenset({"images", "map", "mapbox", "geo", "meta", "source", "customdata"})
_HEIGHT_PX = 420
_CLEAR = "rgba(0,0,0,0)"
_AXIS = {"automargin": True} | dict.fromkeys(("gridcolor", "zerolinecolor"), COLORS["grid"])
_TEMPLATE = {
    "layout": {
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"color": COLORS["ink"]},
        "colorway": [COLORS[one] for one in ("blue", "orange", "green", "vermillion", "purple")],
        "margin": {"t": 24, "r": 24, "b": 48, "l": 56},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}
"""Instead of Plotly's own, which is white by night; what a figure says itself stays."""
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,20})")
_CLOSED_BY_OTHERS = frozenset(
    ["br", "col", "dd", "dt", "hr", "img", "input", "li", "p", "tbody", "td", "th", "thead", "tr"]
)
_ATTRIBUTE = re.compile(
    r"""[\s/]*(?:=[^\s/>=]*|[^\s/>=]+)(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>"'][^\s>]*)?)?"""
)
_MOST_ATTRIBUTES = 1_000
_MOST_READ = 10
"""Times the length of HTML that its tags may be read; more than once where tags hide in tags."""
_MOST_TAGS = 60_000
_MOST_NESTED = 1_000_000
"""Tags times the most that are open at once."""
_SIGNATURES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}


def plain_text(text: str) -> str:
    """Return what a terminal would show at last: no color codes, progress at its end."""
    lines = _ANSI.sub("", text.replace("\r\n", "\n")).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def markdown(text: str, *, name: str, level: int) -> tuple[Markup, int]:
    """Return Markdown as HTML, and the level of its last heading.

    Args:
        text: HTML within it is shown as text, addresses are written out instead of followed.
        name: As of :func:`rich`.
        level: Level of the heading before it; no heading skips one.
    """
    import mistune

    class Renderer(mistune.HTMLRenderer):
        def __init__(self) -> None:
            super().__init__(escape=True)
            self.level = level

        def heading(self, text: str, level: int, **_: Any) -> str:
            self.level = min(level + 1, self.level + 1, 6)
            return f"<h{self.level}>{text}</h{self.level}>\n"

        def link(self, text: str, url: str, title: str | None = None) -> str:
            del title
            shown = escape(url)
            return text if text in (url, shown) or url.startswith("#") else f"{text} ({shown})"

        def image(self, text: str, url: str, title: str | None = None) -> str:
            del url, title
            return f"<em>{text}</em>"

    renderer = Renderer()
    convert = mistune.create_markdown(renderer=renderer, plugins=["table", "strikethrough"])
    html = str(convert(text))
    return rich(html, name=name, caption="Table of the text", keeps_headings=True), renderer.level


def rich(html: str, *, name: str, caption: str, keeps_headings: bool = False) -> Markup:
    """Return HTML of a notebook without anything that acts, asks or hides.

    Args:
        html: Tables of pandas, its styles included, static twins of panels, anything else.
        name: Prefix of its classes and ids, and id of the element that holds it.
        caption: Of tables that have none.
        keeps_headings: Whether headings stay; else they become paragraphs.
    """
    html, _ = _parted(html, "script")
    html, sheets = _parted(html, "style")
    style = "".join(_sheet(one, name) for one in sheets)
    body = _cleaner(name, keeps_headings=keeps_headings).clean(html)
    body = body.replace(
        "<caption></caption>", f'<caption class="unseen">{escape(caption)}</caption>'
    )
    style = f"<style>{style}</style>" if style else ""
    lit = " lit" if re.search(r"background(-color)?\s*:", style + body) else ""
    return Markup(f'{style}<div class="rich{lit}" id="{name}">{body}</div>')  # noqa: S704 - sanitized


def is_calm_html(html: str) -> bool:
    """Return whether HTML is not nested so deep, or so often, that reading it takes long."""
    if html.count("<") + html.count("&") > _MOST_TAGS or _most_attributes(html) > _MOST_ATTRIBUTES:
        return False
    opened: dict[str, int] = {}
    deepest = 0
    for tags, (close, tag) in enumerate(_TAG.findall(html), start=1):
        if tag.lower() not in _CLOSED_BY_OTHERS:
            opened[tag.lower()] = max(0, opened.get(tag.lower(), 0) + (-1 if close else 1))
            deepest = max(deepest, sum(opened.values()))
        if tags * deepest > _MOST_NESTED:
            return False
    return True


def _most_attributes(html: str) -> int:
    """Return how many attributes the fullest tag has: each is compared with all before it.

    Where that takes long to find out, it is more than any tag may have.
    """
    most = read = 0
    for tag in _TAG.finditer(html):
        at, found = tag.end(), 0
        while (one := _ATTRIBUTE.match(html, at)) and found <= _MOST_ATTRIBUTES:
            at, found = one.end(), found + 1
        most, read = max(most, found), read + at - tag.end()
        if most > _MOST_ATTRIBUTES or read > _MOST_READ * len(html):
            return _MOST_ATTRIBUTES + 1
    return most


def safe_figure(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a Plotly figure that asks nobody for anything, or None where it would be empty.

    It has neither width nor title, and the colors of the page where it names none.
    """
    traces = [_without(one) for one in spec.get("data", ()) if isinstance(one, Mapping)]
    drawn = [one for one in traces if one.get("type", "scatter") in _DRAWN]
    layout = spec.get("layout")
    layout = _without(layout) if isinstance(layout, Mapping) else {}
    for one in ("width", "title"):  # the page gives it its width, and says its title above
        layout.pop(one, None)
    height = layout.get("height")
    layout["template"] = _TEMPLATE
    layout["height"] = height if isinstance(height, int | float) else _HEIGHT_PX
    return {"data": drawn, "layout": layout} if drawn else None


def image(mime: str, data: str) -> str | None:
    """Return the address of an image that holds its data, or None where it is no such image."""
    if mime == "image/svg+xml":  # as an image it neither runs scripts nor loads anything
        encoded = base64.b64encode(data.encode(errors="replace")).decode()
        return f"data:{mime};base64,{encoded}" if "<svg" in data else None
    try:
        raw = base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return None
    if mime not in _SIGNATURES or not raw.startswith(_SIGNATURES[mime]):
        return None
    return f"data:{mime};base64,{base64.b64encode(raw).decode()}"


def _without(value: Any) -> Any:
    if isinstance(value, str):
        return _LINK.sub("&lt;", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_without(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _without(one) for key, one in value.items() if key not in _GONE}
    return value


def _parted(html: str, tag: str) -> tuple[str, list[str]]:
    """Return HTML without the elements of a name, and what was in them; in linear time."""
    opens = re.compile(rf"<{tag}\b", re.IGNORECASE)
    closes = re.compile(rf"</{tag}\b", re.IGNORECASE)
    kept, found, at = [], [], 0
    while (start := opens.search(html, at)) and (end := closes.search(html, start.end())):
        kept.append(html[at : start.start()])
        found.append(html[start.end() : end.start()].partition(">")[2])
        at = html.find(">", end.end()) + 1 or len(html)
    return "".join([*kept, html[at:]]), found


def _prefixed(names: str, prefix: str) -> str:
    return " ".join(f"{prefix}-{one}" for one in names.split() if re.fullmatch(r"[\w-]+", one))


def _sheet(text: str, name: str) -> str:
    import tinycss2

    rules = tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True)
    return "".join(_rules(rules, name))


def _rules(rules: Iterable[Any], name: str) -> Iterator[str]:
    import tinycss2

    for rule in rules:
        head = tinycss2.serialize(rule.prelude).strip() if hasattr(rule, "prelude") else ""
        if rule.type == "qualified-rule" and _SELECTOR.fullmatch(head):
            chosen = _NAME.sub(rf"\1{name}-\2", head).split(",")
            selectors = ",".join(f"#{name} {one.strip()}" for one in chosen)
            declared = _declarations(tinycss2.parse_blocks_contents(rule.content))
            yield f"{selectors}{{{declared}}}" if declared else ""
        elif (
            rule.type == "at-rule"
            and rule.content
            and _MEDIA.fullmatch(f"{rule.lower_at_keyword} {head}")
        ):
            within = tinycss2.parse_rule_list(rule.content, skip_comments=True)
            yield f"@media {head}{{{''.join(_rules(within, name))}}}"


def _declarations(found: Iterable[Any]) -> str:
    import tinycss2

    kept = []
    for one in found:
        if one.type == "declaration" and _PROPERTIES.fullmatch(one.lower_name):
            value = tinycss2.serialize(one.value).strip()
            # a value that an element could be ended or an address be asked for with is none
            if _is_calm(one.value) and not set(value) & set("<>\\{}@"):
                kept.append(f"{one.lower_name}:{value}")
    return ";".join(kept)


def _is_calm(tokens: Iterable[Any]) -> bool:
    for token in tokens:
        if token.type in ("url", "error", "at-keyword"):
            return False
        if token.type == "function":
            if token.lower_name not in _FUNCTIONS or not _is_calm(token.arguments):
                return False
        elif hasattr(token, "content") and not _is_calm(token.content):
            return False
    return True


def _cleaner(name: str, *, keeps_headings: bool) -> Any:
    from bleach.sanitizer import Cleaner

    class Style:
        def sanitize_css(self, style: str) -> str:
            import tinycss2

            return _declarations(tinycss2.parse_blocks_contents(style))

    def allow(tag: str, attribute: str, value: str) -> bool:
        if tag == "img":
            return attribute in ("alt", "width", "height") or (
                attribute == "src" and bool(_DATA_IMAGE.fullmatch(value))
            )
        return attribute in _ATTRIBUTES

    def tell(source: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return _tell(source, name, keeps_headings=keeps_headings)

    return Cleaner(
        tags=_TAGS,
        attributes=allow,
        protocols={"data"},
        strip=True,
        css_sanitizer=Style(),
        filters=[tell],
    )


def _tell(
    source: Iterable[dict[str, Any]], name: str, *, keeps_headings: bool
) -> Iterator[dict[str, Any]]:
    """Give tables scopes and a caption, images words; take from headings their level."""
    is_head = False
    tokens = list(source)
    for at, token in enumerate(tokens):
        kind, tag = token["type"], token.get("name", "")
        if kind == "StartTag" and tag in ("thead", "tbody"):
            is_head = tag == "thead"
        if kind in ("StartTag", "EmptyTag"):
            _describe(token, name, is_head=is_head)
        if re.fullmatch(r"h[1-6]", tag) and not keeps_headings:
            token["name"] = "p"
        yield token
        if kind == "StartTag" and tag == "table" and not _has_caption(tokens[at + 1 : at + 4]):
            for edge in ("StartTag", "EndTag"):
                yield {**token, "type": edge, "name": "caption", "data": {}}


def _has_caption(following: Iterable[dict[str, Any]]) -> bool:
    first = next((one for one in following if one["type"] != "SpaceCharacters"), {})
    return first.get("name") == "caption"


def _describe(token: dict[str, Any], name: str, *, is_head: bool) -> None:
    data, tag = token["data"], token["name"]
    for one in ((None, "id"), (None, "class")):
        if one in data:
            data[one] = _prefixed(data[one], name)
    if tag == "th":
        data.setdefault((None, "scope"), "col" if is_head else "row")
    elif tag == "img":
        told = "image of the notebook" if (None, "src") in data else "image that is left out"
        data.setdefault((None, "alt"), told)
