"""The one set of patterns for personal data and secrets, removed before anything is stored."""

from __future__ import annotations

import re

__all__ = ["PATTERNS", "hide_password", "redact"]

PATTERNS: dict[str, re.Pattern[str]] = {
    "private-key": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
        r"(?:(?!-----)[\s\S]){0,10000}-----END [A-Z ]*PRIVATE KEY-----"
    ),
    "api-key": re.compile(
        r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{30,})"
    ),
    "token": re.compile(
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,2000}"
    ),
    "email": re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}\b"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "card": re.compile(r"\b(?:\d{4}[ -]){3}\d{4}\b|\b\d{15,16}\b"),
    "social-security": re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    "ip-address": re.compile(
        r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"
    ),
    "phone": re.compile(r"(?<![\w.])\+?\d{1,3}[ -]\(?\d{2,4}\)?[ -]\d{3,4}[ -]?\d{2,4}\b"),
}
"""Name → pattern, in the order of removal (long and sure ones first). Names of people are out of
reach of patterns: text scrubbed here is not anonymous."""

_HINT = re.compile(r"[@\d]|sk-|gh[pousr]_|AKIA|xox[abprs]-|AIza|eyJ|-----BEGIN")
"""What every match holds: most prompts hold none of it and need no closer look."""


def redact(text: str) -> str:
    """Return the text with every match replaced by ``[name]`` of its pattern."""
    if not _HINT.search(text):
        return text
    for name, pattern in PATTERNS.items():
        text = pattern.sub(f"[{name}]", text)
    return text


def hide_password(url: str) -> str:
    """Return an address without what may be secret in it: user, password and query."""
    return re.sub(r"(?s)^([a-z+]+://)?.*@", r"\1***@", url).partition("?")[0]
