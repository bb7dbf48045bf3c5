"""The hash of code moves with every module that is reached, and with no other."""

from __future__ import annotations

import subprocess

import pytest

from workbench.core import provenance
from workbench.core.provenance import git_commit, library_versions, reached_files, stamp


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own in place of ours; calling it writes a module."""
    root = tmp_path / "house"
    monkeypatch.setattr(provenance, "_PACKAGE", root)
    provenance._file_facts.cache_clear()

    def write(module: str, source: str) -> None:
        file = root.joinpath(*module.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in (file.parent, *file.parent.parents):
            if not folder.is_relative_to(root):
                break
            (folder / "__init__.py").touch()
        file.write_text(source)
        provenance._file_facts.cache_clear()  # a new process would start with an empty cache

    write("roof.tiles", "from house.walls import stone\n")
    write("walls.stone", "def lay():\n    import house.ground.clay as clay\n    return clay\n")
    write("ground.clay", "WET = True\n")
    write("garden.tree", "import house.ground.clay\n")
    yield write
    provenance._file_facts.cache_clear()


SOURCE = "%matplotlib inline\n!ls\nfrom house.roof.tiles import lay\nimport numpy as np\n"


@pytest.mark.parametrize(
    "module", ["roof.tiles", "walls.stone", "ground.clay", "roof.__init__", "walls.__init__"]
)
def test_a_change_in_what_is_reached_changes_the_hash(package, module):
    before = reached_files(SOURCE)
    assert reached_files(SOURCE) == before
    package(module, "CHANGED = 1\nfrom house.walls import stone\nimport house.ground.clay\n")
    assert reached_files(SOURCE) != before


@pytest.mark.parametrize("module", ["garden.tree", "garden.__init__", "attic.box"])
def test_a_change_elsewhere_leaves_it(package, module):
    before = reached_files(SOURCE)
    package(module, "CHANGED = 1\n")
    assert reached_files(SOURCE) == before


@pytest.mark.parametrize(
    "source",
    [
        "import house.garden.tree",
        "import house.garden.tree as tree",
        "from house.garden import tree",
        "from house.garden.tree import leaf",
        "def grow():\n    if True:\n        from house.garden import tree",
    ],
)
def test_every_way_to_import_is_followed_to_the_end(package, source):
    before = reached_files(source)
    package("ground.clay", "WET = False\n")
    assert reached_files(source) != before


def test_circles_end_and_other_packages_do_not_count(package):
    package("ground.clay", "import house.roof.tiles\n")
    assert reached_files(SOURCE)
    assert reached_files("import json, os.path\nfrom pathlib import Path") == reached_files("")


def test_relative_imports_do_not_occur_in_our_code():
    # they would not be followed
    for file in provenance._PACKAGE.rglob("*.py"):
        assert "from ." not in file.read_text(encoding="utf-8"), file


def test_our_own_trainer_reaches_the_store_but_not_the_report(tmp_path):
    def reached(source):
        names, pending = set(), list(provenance._imported_files(source))
        while pending:
            file = pending.pop()
            if file not in names:
                names.add(file)
                pending.extend(provenance._file_facts(file)[1])
        return {str(file.relative_to(provenance._PACKAGE)) for file in names}

    found = reached("from workbench.diffusion.trainer import train")
    assert {"diffusion/trainer.py", "diffusion/engine.py", "core/errors.py"} <= found
    assert not any(name.startswith(("report/", "campaign/", "notebook/")) for name in found)


def test_a_commit_is_named_and_its_changes_are_told(tmp_path):
    git_commit.cache_clear()
    assert git_commit(tmp_path) == "unknown"

    def git(*arguments):
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")  # a tag must not hide the commit
    git_commit.cache_clear()
    head = git("rev-parse", "HEAD")
    assert head.startswith(git_commit(tmp_path))
    (tmp_path / "file").write_text("two")
    git_commit.cache_clear()
    assert git_commit(tmp_path).endswith("+dirty")


def test_a_machine_without_git_is_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    git_commit.cache_clear()
    assert git_commit(tmp_path) == "unknown"
    git_commit.cache_clear()


def test_a_stamp_says_commit_versions_and_seed():
    told = stamp(seed=7)
    assert told["seed"] == 7
    assert told["versions"] == library_versions()
    assert library_versions()["torch"] != "absent"


def test_the_version_of_the_code_is_that_of_each_of_its_files(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text("a = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    versions = [provenance.code_version.__wrapped__()]
    for name, text in (("room/one.py", "a = 2\n"), ("two.py", ""), ("prices.json", "{}")):
        (tmp_path / name).write_text(text)
        versions.append(provenance.code_version.__wrapped__())
    (tmp_path / "notes.txt").write_text("no code")
    assert len(set(versions)) == 4
    assert provenance.code_version.__wrapped__() == versions[-1]
