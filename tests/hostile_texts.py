"""A hundred texts that pages must show and never obey; none says anything of harm."""

from __future__ import annotations

import html
import re

__all__ = ["HOSTILE", "PROBES", "scripts_in"]

_TAGS = (
    "script", "img", "svg", "iframe", "object", "embed", "link", "style", "base", "meta", "form",
    "video", "audio", "math", "details", "template",
)  # fmt: skip
_HANDLERS = ("onerror", "onload", "onclick", "onfocus", "onmouseover", "ontoggle", "onanimationend")

HOSTILE: tuple[str, ...] = (
    # elements
    *(f"<{tag} data-probe=1>probe</{tag}>" for tag in _TAGS),
    # event handlers, in elements and as what might break out of an attribute
    *(f"<img src=x {handler}=window.probe=1>" for handler in _HANDLERS),
    *(f'" {handler}="window.probe=1" x="' for handler in _HANDLERS),
    *(f"' {handler}='window.probe=1' x='" for handler in _HANDLERS[:4]),
    "</script><script>window.probe=1</script>",
    "</style><script>window.probe=1</script>",
    "</textarea><script>window.probe=1</script>",
    "</title><script>window.probe=1</script>",
    "--><script>window.probe=1</script><!--",
    "]]><script>window.probe=1</script>",
    "<ScRiPt>window.probe=1</sCrIpT>",
    "<script/x>window.probe=1</script >",
    "<<script>window.probe=1//<</script>",
    "<svg/onload=window.probe=1>",
    "<svg><animate onbegin=window.probe=1 attributeName=x>",
    "<body onload=window.probe=1>",
    "<a href='javascript:window.probe=1'>probe</a>",
    "javascript:window.probe=1",
    "data:text/html,<script>window.probe=1</script>",
    "<iframe srcdoc='<script>probe</script>'>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.probe=1>",
    '<noscript><p title="</noscript><img src=x onerror=window.probe=1>">',
    '<!--<img src="--><img src=x onerror=window.probe=1>">',
    "<img src=http://192.0.2.1/probe>",
    "<style>@import 'http://192.0.2.1/probe';</style>",
    "url(http://192.0.2.1/probe)",
    "<base href=http://192.0.2.1/>",
    "<meta http-equiv=refresh content=0>",
    # templates and languages
    "{{ 7 * 7 }}",
    "{% raw %}{{ config }}{% endraw %}",
    "{{ ''.__class__ }}",
    "${7*7}",
    "#{7*7}",
    "<%= 7 * 7 %>",
    "{{constructor.constructor('window.probe=1')()}}",
    "{0.__class__}",
    "%(x)s %n %s",
    "$\\href{javascript:window.probe=1}{x}$",
    "\\(\\alert{1}\\)",
    "`${window.probe=1}`",
    "[x](javascript:window.probe=1)",
    "![x](http://192.0.2.1/probe)",
    "```html\n<script>window.probe=1</script>\n```",
    # formulas of spreadsheets, queries, shells, paths
    '=HYPERLINK("http://192.0.2.1")',
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "'; DROP TABLE probe; --",
    "$(probe)",
    "../../../etc/probe",
    "C:\\probe\\..\\x",
    "%2e%2e%2fprobe",
    "file:///probe",
    # what is not seen, or turns the line around
    "a\u202etxt.exe",
    "\u2066left\u2069 \u2067right\u2069",
    "zero\u200bwidth\u200d\u200c\ufeff",
    "soft\u00adhyphen",
    "null\x00byte",
    "\x1b[2J\x1b[31mred",
    "bell\x07 back\x08\x08\x7f",
    "line\u2028separator\u2029",
    "\x85\x9b31m",
    "lone \ud800 surrogate",
    "\udfff\ud800",
    "tag \U000e0041\U000e007f",
    "\ufffe\uffff",
    "e" + "\u0301" * 60,
    # size and shape
    "w" * 5_000,
    "<" * 300,
    "&" * 200 + "lt;script&gt;",
    "&lt;script&gt;window.probe=1&lt;/script&gt;",
    "&#60;script&#62;",
    "\n\n\r\n\t  ",
    " ",
    "null",
    "undefined",
    "NaN",
    "__proto__",
    "constructor",
    "[object Object]",
    "true",
)

PROBES = re.compile(
    r"<\s*(?!/?(?:section|style|h3|h4|div|dl|dt|dd|table|caption|thead|tbody|tr|th|td|bdi|span|p|svg"
    r"|line|circle|path|g|rect|text|label|progress|article|figure|figcaption|br)\b)[a-zA-Z!/?]"
)
"""Beginning of an element that no panel of ours writes."""


def scripts_in(page: str) -> list[str]:
    """Return what of a page is not escaped or not shown: elements, handlers, unseen characters."""
    found = [page[max(0, one.start() - 20) : one.end() + 40] for one in PROBES.finditer(page)]
    for element in re.findall(r"<[a-z][^>]*>", page):
        attributes = re.sub(r"\"[^\"]*\"", '""', element)
        if re.search(r"\son\w+\s*=|javascript:|data-probe", html.unescape(attributes)):
            found.append(element)
    found += re.findall(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2066-\u2069]", page
    )
    found += re.findall(r"[\ufeff\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]", page)
    return found
