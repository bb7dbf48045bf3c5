"""Artifacts exist whole or not at all, whoever dies and whatever fills up."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import DataError, StoreError
from workbench.core.settings import read_settings
from workbench.store import files as module
from workbench.store.artifacts import write_atomic, write_json_atomic
from workbench.store.database import open_store

ID = "a" * 64


def make(store, artifact_id=ID, *, text="content", kind="model", **metadata):
    with store.artifacts.create(kind, artifact_id, metadata) as folder:
        (folder / "file").write_text(text)
    return store.artifacts.path(kind, artifact_id)


def left(store):
    """Return everything under the artifacts folder but lock files."""
    root = store.home / "artifacts"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.suffix != ".lock")


# -- folders -------------------------------------------------------------------------------------


def test_an_artifact_is_found_again_by_a_new_process(store, settings):
    folder = make(store, metadata_value=1)
    again = open_store(settings)
    assert (again.artifacts.path("model", ID) / "file").read_text() == "content"
    assert folder == again.artifacts.path("model", ID)
    assert again.artifacts.metadata("model", ID) == {"metadata_value": 1}
    again.engine.dispose()


def test_metadata_may_be_filled_inside_the_block(store):
    metadata = {}
    with store.artifacts.create("model", ID, metadata) as folder:
        metadata["files"] = len(list(folder.iterdir()))
    assert store.artifacts.metadata("model", ID) == {"files": 0}


@pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyboardInterrupt(), SystemExit(1)])
def test_a_block_that_raises_leaves_nothing(store, error):
    def write_half():
        with store.artifacts.create("model", ID, {}) as folder:
            (folder / "half").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert not store.artifacts.exists("model", ID)
    assert left(store) == ["model"]


def test_nothing_is_seen_before_the_block_ends(store):
    with store.artifacts.create("model", ID, {}) as folder:
        (folder / "file").write_text("x")
        assert not store.artifacts.exists("model", ID)
        with pytest.raises(DataError, match="newest: none"):
            store.artifacts.path("model", ID)
    assert store.artifacts.exists("model", ID)


def test_a_row_that_cannot_be_added_leaves_no_artifact(store, monkeypatch):
    def full(*_):
        raise StoreError("the database is full")

    monkeypatch.setattr(store.artifacts, "_add_row", full)
    with pytest.raises(StoreError, match="is full"):
        make(store)
    monkeypatch.undo()
    assert not store.artifacts.exists("model", ID)
    make(store, text="second try")
    assert (store.artifacts.path("model", ID) / "file").read_text() == "second try"


def test_the_rest_of_a_killed_process_is_replaced(store):
    # killed between moving the folder and adding the row
    rest = store.home / "artifacts" / "model" / ID[:32]
    rest.mkdir(parents=True)
    (rest / "stale").write_text("stale")
    assert not store.artifacts.exists("model", ID)
    folder = make(store)
    assert [file.name for file in folder.iterdir()] == ["file"]


def test_the_same_id_twice_keeps_the_first(store):
    folder = make(store, text="first", n=1)
    stamp = (folder / "file").stat().st_mtime_ns
    make(store, text="second", n=2)
    assert (folder / "file").read_text() == "first"
    assert (folder / "file").stat().st_mtime_ns == stamp
    assert store.artifacts.metadata("model", ID) == {"n": 1}
    assert left(store) == ["model", f"model/{ID[:32]}", f"model/{ID[:32]}/file"]


def test_one_id_of_two_kinds_is_two_artifacts(store):
    make(store, kind="model", text="m")
    make(store, kind="judge", text="j")
    assert (store.artifacts.path("judge", ID) / "file").read_text() == "j"
    assert (store.artifacts.path("model", ID) / "file").read_text() == "m"


def test_newest_and_order(store):
    assert store.artifacts.newest("pair_set") == ""
    for name in ("c", "a", "b"):
        make(store, name * 64, kind="pair_set")
        time.sleep(0.001)
        assert store.artifacts.newest("pair_set") == name * 64


def test_newest_of_those_that_say_so_and_else_of_all(store):
    for name, kind in (
        ("a", "sanitizer"),
        ("b", "training"),
        ("c", "sanitizer"),
        ("d", "training"),
    ):
        with store.artifacts.create("model", name * 64, {"kind": kind}):
            time.sleep(0.001)
    assert store.artifacts.newest("model", said={"kind": "sanitizer"}) == "c" * 64
    assert store.artifacts.newest("model", said={"kind": "none"}) == "d" * 64


def test_an_unknown_id_is_named_with_the_newest(store):
    make(store)
    with pytest.raises(DataError, match=f"no model 'nope' in .*newest: {ID}"):
        store.artifacts.path("model", "nope")
    with pytest.raises(DataError, match="no model 'nope'"):
        store.artifacts.metadata("model", "nope")


def _create_at_once(home, barrier, number):
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "t"}))
    with store.artifacts.create("model", ID, {"by": number}) as folder:
        for part in range(20):
            (folder / f"part-{part}").write_text(f"by {number}")
        barrier.wait(60)
    store.engine.dispose()


def test_processes_that_create_the_same_artifact_at_once_leave_one_whole(store):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [
        context.Process(target=_create_at_once, args=(str(store.home), barrier, number))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    folder = store.artifacts.path("model", ID)
    writer = store.artifacts.metadata("model", ID)["by"]
    assert {file.read_text() for file in folder.iterdir()} == {f"by {writer}"}
    assert len(list(folder.iterdir())) == 20
    assert len(left(store)) == 2 + 20


def _die_inside(home):
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "t"}))
    with store.artifacts.create("model", ID, {}) as folder:
        (folder / "half").write_text("half")
        os._exit(9)


def test_a_killed_writer_leaves_no_artifact_and_blocks_nobody(store):
    process = multiprocessing.get_context("spawn").Process(
        target=_die_inside, args=(str(store.home),)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 9
    assert store.artifacts.newest("model") == ""
    assert [file.name for file in make(store).iterdir()] == ["file"]


# -- files ---------------------------------------------------------------------------------------


@given(old=st.none() | st.binary(max_size=200), new=st.binary(max_size=200))
def test_a_file_has_exactly_what_was_written(tmp_path_factory, old, new):
    file = tmp_path_factory.mktemp("atomic") / "deep" / "file"
    if old is not None:
        write_atomic(file, old)
    write_atomic(file, new)
    assert file.read_bytes() == new
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_a_reader_of_the_old_file_keeps_the_old_content(tmp_path):
    file = tmp_path / "file"
    write_atomic(file, b"old")
    with file.open("rb") as reader:
        write_atomic(file, b"new and longer")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new and longer"


class FullDisk:
    """Lets some bytes through, then says that there is no space."""

    def __init__(self, monkeypatch, number):
        def fsync(_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module.os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_the_old_file_and_names_path_and_fix(tmp_path, monkeypatch, number):
    file = tmp_path / "result.json"
    write_json_atomic(file, {"old": True})
    FullDisk(monkeypatch, number)
    with pytest.raises(StoreError, match="the disk is full; free space and run again") as caught:
        write_json_atomic(file, {"old": False})
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert json.loads(file.read_text()) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_disk_names_the_setting(tmp_path, monkeypatch, number):
    FullDisk(monkeypatch, number)
    with pytest.raises(StoreError, match="not writable; set WORKBENCH_HOME"):
        write_atomic(tmp_path / "file", b"x")


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path, monkeypatch):
    FullDisk(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_inside_an_artifact_is_a_store_error_and_leaves_nothing(store):
    def fill():
        with store.artifacts.create("model", ID, {}) as folder:
            (folder / "half").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="the disk is full"):
        fill()
    assert left(store) == ["model"]


def test_real_files_that_may_not_grow_are_a_full_disk(tmp_path):
    # EFBIG from the system itself: the limit of the process on the size of files
    import resource
    import signal

    file = tmp_path / "file"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreError, match="the disk is full"):
            write_atomic(file, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), {1: {2}}, object()])
def test_what_json_cannot_say_writes_nothing(tmp_path, value):
    with pytest.raises((ValueError, TypeError)):
        write_json_atomic(tmp_path / "file", value)
    assert list(tmp_path.iterdir()) == []
