"""What GPUs can do at most: a shipped, dated table of dense bf16 peaks."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Gpu", "gpus", "peak_flops"]

_TABLE = Path(__file__).with_name("gpus.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What a GPU can do at most."""

    name: str
    names: str
    """Pattern of what drivers call it; siblings of other peaks are left out."""
    peak_flops: float
    """Dense bf16 FLOP/s; without the sparsity that datasheets like to print."""
    watts: float
    """Of the board at full load."""
    source: str
    checked: str


@cache
def gpus() -> dict[str, Gpu]:
    """Return the GPUs of the table by name."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {
        name: Gpu(name=name, checked=table["checked"], **row) for name, row in table["gpus"].items()
    }


def peak_flops(device: str) -> float | None:
    """Return the dense bf16 FLOP/s of a GPU by its driver's name; None where it is not known.

    A part of a GPU, as MIG makes them, has no peak here, and neither has a CPU.
    """
    if "MIG" in device:
        return None
    for gpu in gpus().values():
        if re.search(rf"\b{gpu.names}\b", device):
            return gpu.peak_flops
    return None
