"""Stamps that say where a number came from: code, versions, commit."""

from __future__ import annotations

import ast
import platform
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from workbench import __version__
from workbench.core.identity import content_id, file_sha256

__all__ = [
    "code_version", "git_commit", "library_versions", "reached_files", "stamp", "without_magics",
]  # fmt: skip

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("numpy", "pandas", "torch", "lightning", "transformers", "scikit-learn", "scipy")


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on, and of Python."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


@cache
def git_commit(folder: Path = _PACKAGE) -> str:
    """Return the commit of the checkout, with ``+dirty`` when changed, or ``unknown``."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


@cache
def code_version() -> str:
    """Return the version and a hash of all of this package's code, as it was first asked for."""
    files = sorted(file for kind in ("*.py", "*.json") for file in _PACKAGE.rglob(kind))
    hashes = {str(file.relative_to(_PACKAGE)): file_sha256(file) for file in files}
    return f"{__version__}+{content_id(hashes)[:12]}"


def stamp(*, seed: int | None = None) -> dict[str, object]:
    """Return the stamp that results carry: commit, library versions, seed."""
    return {"commit": git_commit(), "versions": library_versions(), "seed": seed}


def reached_files(source: str) -> dict[str, str]:
    """Return path → hash of all of this package's files that a piece of Python can reach.

    Paths are inside the package, e.g. ``llm/gateway.py``, of modules and of the data files beside
    them, e.g. price tables. Imports are followed as text, also those inside functions, so a change
    in a room that the source never imports leaves the hashes alone.
    """
    reached: dict[str, str] = {}
    pending = list(_imported_files(without_magics(source)))
    while pending:
        file = pending.pop()
        name = str(file.relative_to(_PACKAGE))
        if name not in reached:
            reached[name], imports = _file_facts(file)
            reached.update(_data_beside(file.parent))
            pending.extend(imports)
    return reached


@cache
def _file_facts(file: Path) -> tuple[str, tuple[Path, ...]]:
    return file_sha256(file), tuple(_imported_files(file.read_text(encoding="utf-8")))


@cache
def _data_beside(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(_PACKAGE)): file_sha256(file) for file in folder.glob("*.json")}


def without_magics(source: str) -> str:
    """Return a cell's Python: lines of magics are blank, a cell of another language is empty."""
    if source.lstrip().startswith("%%"):
        return ""
    return "\n".join(
        "" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()
    )


def _imported_files(source: str) -> Iterator[Path]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from _files_of(node.module)
            for alias in node.names:
                yield from _files_of(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(alias.name)


def _files_of(module: str) -> Iterable[Path]:
    first, *rest = module.split(".")
    if first != _PACKAGE.name:
        return
    folder = _PACKAGE
    for part in rest:
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
            return
        folder = folder / part
    if (folder / "__init__.py").is_file():
        yield folder / "__init__.py"
