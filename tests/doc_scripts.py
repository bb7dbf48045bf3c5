"""Commands of the documentation, run as they are written in a folder of their own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from machine import ROOT, require

__all__ = ["execute", "script_of"]


def script_of(file: str, heading: str, folder: Path) -> str:
    """Return the first block of commands under a heading, with paths and port of our own."""
    text = (ROOT / file).read_text(encoding="utf-8")
    script = text.partition(f"{heading}\n")[2].split("```")[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # In one pass: the environment may itself lie under /tmp.
    ours = {"8098": port, ".venv/bin": f"{sys.prefix}/bin", "/tmp": str(folder)}
    return re.sub("|".join(map(re.escape, ours)), lambda found: ours[found[0]], script)


def execute(script: str, folder: Path) -> str:
    for name in ("experiments", "notebooks"):
        (folder / name).mkdir()
    # a failure must not leave the server behind
    script = f"trap 'kill $(jobs -p) || true' EXIT\n{script}"
    done = subprocess.run(
        [require("bash"), "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True,
        text=True, timeout=300, check=False,
        env={name: value for name, value in os.environ.items() if "WORKBENCH" not in name},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
