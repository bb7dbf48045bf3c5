"""What tests need of the machine: the repository, and programs that CI may not be without."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def require(tool: str, *programs: str) -> str:
    """Return the path of a program, or skip; a failure where WORKBENCH_REQUIRE names the tool."""
    for program in programs or (tool,):
        if path := shutil.which(program):
            return path
    message = f"{tool} is not installed ({', '.join(programs or (tool,))})"
    if tool in os.environ.get("WORKBENCH_REQUIRE", "").split(","):
        pytest.fail(message)
    pytest.skip(message)
