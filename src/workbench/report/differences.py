"""Differences of two estimates with their interval, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.store.results import Interval

__all__ = ["by_chance", "difference", "is_apart", "verdict"]


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> Interval:
    """Return second minus first with its interval, from the intervals of both.

    They are taken as independent; where both were measured on the same tests they are not, and
    the interval is then wider than it need be.

    Source:
        Zou & Donner 2008, Statistics in Medicine 27(10), eqs. 3 and 4 (recovery of variance
        estimates); for Wilson intervals it is method 10 of Newcombe 1998.
    """
    value = float(second["value"]) - float(first["value"])
    below = math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    above = math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return {"value": value, "low": value - below, "high": value + above}


def is_apart(one: Interval) -> bool:
    """Return whether an interval has a width and leaves zero out."""
    return one["low"] < one["high"] and (one["low"] > 0 or one["high"] < 0)


def verdict(one: Interval) -> str:
    """Return what a difference allows to say."""
    if one["low"] == one["high"]:
        return "no interval, no verdict"
    if not is_apart(one):
        return "not told apart"
    return "higher in the second" if one["value"] > 0 else "lower in the second"


def by_chance(found: Sequence[Interval]) -> str:
    """Return how many of several differences leave zero out, and how many chance alone would.

    Those without an interval do not count; empty where all are.
    """
    known = [one for one in found if one["low"] < one["high"]]
    if not known:
        return ""
    told = (
        f"{sum(map(is_apart, known))} of {len(known)} differences leave zero out; by chance alone"
    )
    return f"{told} about {len(known) / 20:.1f} would."
