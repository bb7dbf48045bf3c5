"""The colors of figures: Okabe–Ito, darker where thin lines on paper or words need it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COLORS", "DARK", "TEXT"]

_THEME = {
    "ink": ("#23221f", "#e9e6dd"),
    "muted": ("#6a6860", "#a5a297"),
    "grid": ("#e9e7df", "#33322e"),
    "paper": ("#fdfdfa", "#171614"),
    "blue": ("#0072b2", "#5aa9e0"),
    "orange": ("#d07c00", "#e8a33d"),
    "green": ("#00825f", "#3fbf97"),
    "vermillion": ("#c24d00", "#ee8247"),
    "purple": ("#b0608f", "#d793ba"),
    "sky": ("#3795c9", "#86cdf5"),
    "gray": ("#8a8880", "#8f8d84"),
    "band": ("rgba(0,114,178,0.13)", "rgba(90,169,224,0.18)"),
}
_TEXT = {
    "orange": ("#9a5c00", "#e8a33d"),
    "purple": ("#9a4f86", "#d793ba"),
    "sky": ("#2273a6", "#86cdf5"),
    "gray": ("#6a6860", "#a5a297"),
}
COLORS: Mapping[str, str] = {name: light for name, (light, _) in _THEME.items()}
"""Of marks and lines: 3 to 1 against the paper at least."""

TEXT: Mapping[str, str] = {**COLORS, **{name: light for name, (light, _) in _TEXT.items()}}
"""Of words: 4.5 to 1 against the paper at least."""

DARK: Mapping[str, str] = dict([*_TEXT.values(), *_THEME.values()])
"""Light color → dark color."""
