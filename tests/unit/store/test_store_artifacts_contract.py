"""The same artifacts on local folders, in memory, and on a mounted folder."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from artifact_contract import ID, ArtifactContract, content, make, quiet
from workbench.cli.store import store as store_group
from workbench.core.errors import ConfigError, InputError, StoreError
from workbench.core.settings import read_settings
from workbench.store import cache as cache_module
from workbench.store import remote as remote_module
from workbench.store.cache import FolderCache
from workbench.store.database import open_store
from workbench.store.marks import read_mark
from workbench.store.remote import open_remote
from workbench.store.retention import hold


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(remote_module, "_PAUSES_S", (0, 0))


def settings_of(tmp_path, url="", **more):
    return read_settings(
        {
            "WORKBENCH_HOME": str(tmp_path / "home"),
            "WORKBENCH_DATABASE_URL": f"sqlite:///{tmp_path / 'workbench.db'}",
            "WORKBENCH_USER": "tester",
            "WORKBENCH_ARTIFACTS_URL": url,
            **more,
        }
    )


@pytest.fixture
def memory(tmp_path):
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield f"memory://bucket/{tmp_path.name}"
    MemoryFileSystem.store.clear()


class TestLocal(ArtifactContract):
    @pytest.fixture
    def settings(self, tmp_path):
        return settings_of(tmp_path)


class TestMemory(ArtifactContract):
    @pytest.fixture
    def settings(self, tmp_path, memory):
        return settings_of(tmp_path, memory)


class TestMounted(ArtifactContract):
    @pytest.fixture
    def settings(self, tmp_path):
        return settings_of(tmp_path, f"file://{tmp_path}/mounted")


# -- faults of a location ------------------------------------------------------------------------


@pytest.fixture
def remote_store(tmp_path, memory):
    opened = open_store(settings_of(tmp_path, memory))
    yield opened
    opened.engine.dispose()


def emptied(store):
    """Forget what this machine has."""
    import shutil

    shutil.rmtree(store.home / "cache")


def test_it_is_downloaded_once(remote_store, monkeypatch):
    make(remote_store)
    emptied(remote_store)
    got = []
    files = remote_store.artifacts._shelf.remote._files
    get = files.get
    monkeypatch.setattr(files, "get", lambda *a, **k: got.append(a) or get(*a, **k))
    for _ in range(3):
        remote_store.artifacts.path("model", ID)
    assert len(got) == 1


def test_a_fault_that_passes_is_not_seen(remote_store, monkeypatch):
    make(remote_store)
    emptied(remote_store)
    files = remote_store.artifacts._shelf.remote._files
    faults = [ConnectionError("reset"), TimeoutError("slow")]
    get = files.get

    def flaky(*args, **more):
        if faults:
            raise faults.pop()
        return get(*args, **more)

    monkeypatch.setattr(files, "get", flaky)
    assert content(remote_store.artifacts.path("model", ID)) == {"file": b"content"}
    assert not faults


def test_a_fault_that_stays_names_address_and_fix_and_no_secret(remote_store, monkeypatch):
    make(remote_store)
    emptied(remote_store)
    files = remote_store.artifacts._shelf.remote._files
    key = "AKIA" + "A" * 16

    def down(*_, **__):
        raise ConnectionError(f"https://host/x?X-Amz-Signature=abc refused {key}\nmore")

    monkeypatch.setattr(files, "get", down)
    with pytest.raises(StoreError, match=r"memory://bucket/.* cannot read .*check that") as caught:
        remote_store.artifacts.path("model", ID)
    told = str(caught.value)
    assert "\n" not in told
    assert key not in told
    assert "Signature" not in told
    monkeypatch.undo()
    assert content(remote_store.artifacts.path("model", ID)) == {"file": b"content"}


def test_a_half_upload_never_counts(remote_store, monkeypatch):
    files = remote_store.artifacts._shelf.remote._files
    put, pipe = files.put, files.pipe

    def down(*_, **__):
        raise ConnectionError("reset")

    monkeypatch.setattr(files, "pipe", down)  # the manifest is last
    with pytest.raises(StoreError, match="cannot write"):
        make(remote_store)
    assert put.__self__.find("bucket")
    assert not remote_store.artifacts.exists("model", ID)
    monkeypatch.setattr(files, "pipe", pipe)
    assert content(make(remote_store, text="whole")) == {"file": b"whole"}


def test_a_file_that_was_altered_is_refused_and_found(remote_store):
    make(remote_store)
    emptied(remote_store)
    files = remote_store.artifacts._shelf.remote._files
    (path,) = [one for one in files.find("bucket") if one.endswith("/file")]
    files.pipe({path: b"altered"})
    with pytest.raises(StoreError, match="no longer matches its sha256"):
        remote_store.artifacts.path("model", ID)
    assert not list((remote_store.home / "cache").glob("up-*"))
    (problem,) = remote_store.artifacts.problems("model", ID, deep=True)
    assert "model/" in problem
    assert remote_store.artifacts.problems("model", ID) == []  # the size is the same


def test_a_file_that_is_gone_is_found(remote_store):
    make(remote_store)
    files = remote_store.artifacts._shelf.remote._files
    (path,) = [one for one in files.find("bucket") if one.endswith("/file")]
    files.rm(path)
    (problem,) = remote_store.artifacts.problems("model", ID)
    assert problem.endswith("/file is missing")


@pytest.mark.parametrize("name", ["../../out", "/out", "a/../../out", "a\\..\\out"])
def test_a_manifest_cannot_write_beside_the_folder(remote_store, tmp_path, name):
    import json

    make(remote_store)
    emptied(remote_store)
    files = remote_store.artifacts._shelf.remote._files
    (path,) = [one for one in files.find("bucket") if one.endswith(".json")]
    manifest = {"files": {name: {"sha256": "0", "bytes": 1}}, "packed": False}
    files.pipe({path: json.dumps(manifest).encode()})
    with pytest.raises(StoreError, match="not ours"):
        remote_store.artifacts.path("model", ID)
    assert not list(tmp_path.rglob("out"))


def test_an_archive_cannot_write_beside_the_folder(tmp_path):
    import io
    import tarfile

    import pyarrow as pa

    from workbench.store.packing import unpack

    with (
        pa.output_stream(str(tmp_path / "archive"), compression="zstd") as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        entry = tarfile.TarInfo("../out")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(StoreError, match="damaged"):
        unpack(tmp_path / "archive", tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_refused(store):
    make(store, table=b"line\n" * 5_000)
    store.artifacts.pack("model", ID, say=lambda *_: None)
    (archive,) = store.home.glob("artifacts/model/*.zst")
    archive.write_bytes(archive.read_bytes()[:-3] + b"xyz")
    assert "no longer matches" in store.artifacts.problems("model", ID)[0]
    with pytest.raises(StoreError, match="damaged; restore it from a backup"):
        store.artifacts.path("model", ID)


def test_what_was_local_before_stays_readable(tmp_path, memory):
    before = open_store(settings_of(tmp_path))
    make(before, text="local")
    after = open_store(settings_of(tmp_path, memory))
    make(after, "b" * 64, text="remote")
    assert (after.artifacts.path("model", ID) / "file").read_text() == "local"
    emptied(after)
    with pytest.raises(StoreError, match="set WORKBENCH_ARTIFACTS_URL"):
        before.artifacts.path("model", "b" * 64)
    for one in (before, after):
        one.engine.dispose()


def test_what_was_local_before_is_taken_along(tmp_path, memory, monkeypatch):
    before = open_store(settings_of(tmp_path))
    make(before, text="plain")
    hold(before, "model", ID, why="case 1")
    packed = content(make(before, "b" * 64, table=b"line\n" * 5_000))
    before.artifacts.pack("model", "b" * 64, say=quiet)
    damaged = make(before, "d" * 64)
    (damaged / "file").write_text("cut")
    for name, value in before.settings.to_environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="WORKBENCH_ARTIFACTS_URL is not set"):
        CliRunner().invoke(store_group, ["push"], catch_exceptions=False)
    monkeypatch.setenv("WORKBENCH_ARTIFACTS_URL", memory)
    for told in ("pushed 2 artifacts", "pushed 0 artifacts"):
        call = CliRunner().invoke(store_group, ["push"], catch_exceptions=False)
        assert told in call.output
        assert "DAMAGED" in call.output
        assert call.exit_code == 1
    assert damaged.is_dir()
    assert not list(before.home.glob("artifacts/model/[ab]*"))
    before.engine.dispose()
    other = open_store(settings_of(tmp_path, memory, WORKBENCH_HOME=str(tmp_path / "other")))
    assert content(other.artifacts.path("model", ID)) == {"file": b"plain"}
    assert content(other.artifacts.path("model", "b" * 64)) == packed
    assert other.artifacts.metadata("model", ID) == {"n": 1}
    assert read_mark(other.engine, "model", ID)[1].hold["why"] == "case 1"
    other.engine.dispose()


def test_two_machines_that_make_the_same_leave_one(remote_store, tmp_path, memory, monkeypatch):
    other = open_store(
        settings_of(tmp_path, memory, WORKBENCH_HOME=str(tmp_path / "other"))
    )  # another home: no common lock
    add_row = remote_store.artifacts._add_row

    def slow(*args):
        make(other)  # while the first is between upload and row
        add_row(*args)

    monkeypatch.setattr(remote_store.artifacts, "_add_row", slow)
    make(remote_store)
    remote = remote_store.artifacts._shelf.remote
    key = read_mark(other.engine, "model", ID)[1].key
    assert remote.everything() == [(f"model/{ID[:32]}", key)]
    assert content(remote_store.artifacts.path("model", ID)) == {"file": b"content"}
    other.engine.dispose()


def _die(environment, moment):
    """Replace an artifact and die at a moment of that, as by kill -9."""
    import os

    store = open_store(read_settings(environment))
    remote = store.artifacts._shelf.remote
    die = lambda *_, **__: os._exit(9)  # noqa: E731
    if moment == "before the manifest":
        remote._files.pipe = die
    elif moment == "before the row":
        store.artifacts._shelf._cache.adopt = die
    else:
        store.artifacts._shelf.clear = die
    make(store, mend=True, text="new")


@pytest.mark.parametrize(
    ("moment", "text"),
    [("before the manifest", "old"), ("before the row", "old"), ("before the clearing", "new")],
)
def test_killed_while_it_is_replaced_one_of_both_is_there_whole(tmp_path, moment, text):
    import multiprocessing

    from workbench.store import rests

    settings = settings_of(tmp_path, f"file://{tmp_path}/mounted")
    store = open_store(settings)
    make(store, text="old")
    process = multiprocessing.get_context("spawn").Process(
        target=_die, args=(settings.to_environment(), moment)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 9
    emptied(store)
    assert content(store.artifacts.path("model", ID)) == {"file": text.encode()}
    shelf = store.artifacts._shelf
    assert rests.sweep(store.engine, shelf.root, shelf.remote, older_s=-1) >= 1
    emptied(store)
    assert content(store.artifacts.path("model", ID)) == {"file": text.encode()}
    key = read_mark(store.engine, "model", ID)[1].key
    assert shelf.remote.everything() == [(f"model/{ID[:32]}", key)]
    store.engine.dispose()


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("bucket/prefix", "write e.g. s3://bucket/prefix"),
        ("s3:bucket", "write e.g. s3://bucket/prefix"),
        ("s3://me:hunter2@bucket/x", "does not belong"),
        ("s3://bucket?secret=hunter2", "unknown field 'secret'"),
        ("s3://bucket?endpont_url=http://x", "did you mean 'endpoint_url'"),
        ("memory://bucket?anon=1", "unknown field 'anon'"),
        ("s3://bucket/prefix", "set WORKBENCH_OFFLINE=0"),
        ("s3://bucket?endpoint_url=http://192.0.2.1:9000", "set WORKBENCH_OFFLINE=0"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_without_its_secrets(tmp_path, url, why):
    with pytest.raises(ConfigError, match=why) as caught:
        open_store(settings_of(tmp_path, url))
    assert "hunter2" not in str(caught.value)
    assert "WORKBENCH_ARTIFACTS_URL" in str(caught.value)


def test_an_unknown_protocol_and_a_missing_driver_are_named(monkeypatch):
    unknown = open_remote("nosuch://bucket", may_connect=lambda _: True)
    with pytest.raises(ConfigError, match="unknown protocol 'nosuch'"):
        unknown.everything()

    import fsspec

    def missing(_):
        raise ImportError("no s3fs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    s3 = open_remote("s3://bucket", may_connect=lambda _: True)
    with pytest.raises(ConfigError, match=r"pip install 'prompt-safety-workbench\[s3\]'"):
        s3.everything()


def test_the_endpoint_of_the_aws_tools_counts_unless_one_is_given():
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "WORKBENCH_ARTIFACTS_URL": "s3://b/p"}
    settings = read_settings(env)
    assert settings.artifacts_url == "s3://b/p?endpoint_url=http%3A%2F%2F127.0.0.1%3A9"
    assert read_settings(settings.to_environment()) == settings
    given = env | {"WORKBENCH_ARTIFACTS_URL": "s3://b/p?endpoint_url=http://127.0.0.1:7"}
    assert read_settings(given).artifacts_url == given["WORKBENCH_ARTIFACTS_URL"]
    assert read_settings({"AWS_ENDPOINT_URL": "http://x"}).artifacts_url == ""


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "much"])
def test_a_cache_without_a_size_is_refused(value):
    with pytest.raises(ConfigError, match="WORKBENCH_ARTIFACTS_CACHE_GB"):
        read_settings({"WORKBENCH_ARTIFACTS_CACHE_GB": value})


# -- the cache -----------------------------------------------------------------------------------


def fill(size):
    return lambda folder: (folder / "file").write_bytes(b"x" * size)


def test_the_least_recently_used_go_when_the_room_is_needed(tmp_path, monkeypatch):
    import os
    import time

    monkeypatch.setattr(cache_module, "_IN_USE_S", 60)
    cache = FolderCache(tmp_path, limit=250)
    for age, key in ((3, "a"), (2, "b")):
        cache.get(key, "n", fill(100))
        os.utime(tmp_path / key, (time.time() - age * 100,) * 2)
    cache.get("a", "n", fill(100))  # used again: now
    cache.get("c", "n", fill(100))
    assert sorted(one.name for one in tmp_path.iterdir() if one.name[0] != ".") == ["a", "c"]


def test_what_was_asked_for_lately_stays_whatever_the_limit(tmp_path):
    cache = FolderCache(tmp_path, limit=0)
    folders = [cache.get(key, "n", fill(100)) for key in "abc"]
    assert all((folder / "file").is_file() for folder in folders)


def test_a_fill_that_fails_leaves_nothing_and_is_tried_again(tmp_path):
    cache = FolderCache(tmp_path, limit=1000)

    def half(folder):
        (folder / "half").write_text("x")
        raise StoreError("no luck")

    with pytest.raises(StoreError):
        cache.get("a", "n", half)
    assert not [one for one in tmp_path.iterdir() if one.is_dir()]
    assert [one.name for one in cache.get("a", "n", fill(1)).iterdir()] == ["file"]
