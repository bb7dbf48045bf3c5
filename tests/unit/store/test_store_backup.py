from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from backup_rows import contents, files
from campaign_rows import ODD, add_rows_0004, migrate
from isolation_rows import USERS, fill, ids
from workbench.cli import main
from workbench.core.errors import DataError, InputError, StoreError
from workbench.core.settings import read_settings
from workbench.store.backup import backup, restore
from workbench.store.database import SCHEMA_VERSION, as_user, open_store, plain_engine
from workbench.store.events import tell
from workbench.store.verify import verify


@pytest.fixture
def full(store):
    return _fill(store)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A backup that all tests of archives begin with."""
    folder = tmp_path_factory.mktemp("made")
    home = folder / "home"
    store = _fill(open_store(read_settings({"WORKBENCH_HOME": str(home)})))
    backup(store, folder / "store.tar.zst")
    store.engine.dispose()
    return folder / "store.tar.zst"


@pytest.fixture
def archive(made, tmp_path):
    """A copy of it to be changed."""
    return Path(shutil.copy(made, tmp_path / "store.tar.zst"))


def _fill(store):
    for user in USERS:
        fill(store, user)
    tell(store, "attack_run_started", ODD, {ODD: [ODD, None, 0.1]})
    run_folder = store.home / "trial" / "train" / "run-anna"
    run_folder.mkdir(parents=True)
    (run_folder / "result.json").write_text("{}")
    store.runs.update("run-anna", folder=str(run_folder))
    with store.artifacts.create("model", "m" * 64, {}) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / f"x{chr(228)}").write_bytes(bytes(range(256)) * 999)
    return store


@pytest.fixture
def elsewhere(settings, tmp_path):
    home = tmp_path / "other" / "home"
    return replace(settings, home=home, database_url=f"sqlite:///{home / 'workbench.db'}")


def test_what_is_restored_is_what_was_backed_up(full, elsewhere, tmp_path):
    done = backup(full, tmp_path / "store.tar.zst")
    back = restore(done.path, elsewhere)
    assert back == done
    store = open_store(elsewhere)
    assert contents(store) == contents(full)
    run = store.runs.get("run-anna")
    assert run.folder == str(elsewhere.home / "trial" / "train" / "run-anna")
    assert files(elsewhere.home / "trial") == files(full.home / "trial")
    assert verify(store).is_whole
    assert [one.name for one in tmp_path.iterdir() if "tmp-" in one.name] == []
    assert [one.name for one in elsewhere.home.parent.iterdir()] == ["home"]
    store.ledger.add(full.ledger.rows()[:1])  # ids go on
    assert as_user(store, "anna").runs.find() != full.runs.find()
    store.engine.dispose()


def test_neither_overwrites_anything(full, settings, elsewhere, tmp_path):
    path = tmp_path / "store.tar.zst"
    path.write_text("mine")
    with pytest.raises(InputError, match="something already"):
        backup(full, path)
    assert path.read_text() == "mine"
    done = backup(full, tmp_path / "new" / "store.tar.zst")
    before = contents(full)
    with pytest.raises(InputError, match="not empty"):
        restore(done.path, settings)
    assert contents(full) == before
    taken = plain_engine(f"sqlite:///{tmp_path / 'taken.db'}")
    migrate(taken, SCHEMA_VERSION)
    with pytest.raises(InputError, match="has tables already"):
        restore(done.path, replace(elsewhere, database_url=str(taken.url)))
    assert not elsewhere.home.exists()
    taken.dispose()


def test_a_database_beside_the_home_is_filled_too(full, elsewhere, tmp_path):
    done = backup(full, tmp_path / "store.tar.zst")
    settings = replace(elsewhere, database_url=f"sqlite:///{tmp_path / 'beside.db'}")
    restore(done.path, settings)
    store = open_store(settings)
    assert contents(store) == contents(full)
    assert not (settings.home / "workbench.db").exists()
    store.engine.dispose()


def test_a_damaged_artifact_is_not_backed_up_silently(full, tmp_path):
    shutil.rmtree(full.artifacts.path("model", "m" * 64))
    with pytest.raises(DataError, match="removed"):
        backup(full, tmp_path / "store.tar.zst")
    assert [one.name for one in tmp_path.iterdir()] == ["home"]


def _read(path):
    """Return the entries of a backup: name → content."""
    with pa.input_stream(str(path), compression="zstd") as packed:
        content = io.BytesIO(packed.read())
    with tarfile.open(fileobj=content) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}


def _write(path, entries):
    with (
        pa.output_stream(str(path), compression="zstd") as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for name, content in entries:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if entry.isreg():
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _forged(path, changes, *, more=(), manifest=None):
    """Write a backup with other files, their hashes as they should be."""
    entries = _read(path)
    told = json.loads(entries.pop("manifest.json"))
    for name, content in changes.items():
        entries[name] = content
        told["files"][name] = {
            "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
        }  # fmt: skip
    told |= manifest or {}
    new = path.with_name("forged.tar.zst")
    _write(new, [("manifest.json", json.dumps(told).encode()), *entries.items(), *more])
    return new


def _link(kind):
    entry = tarfile.TarInfo("artifacts/model/x/link")
    entry.type, entry.linkname = kind, "/etc/passwd"
    return entry


NAMES = [
    "../out", "/out", "artifacts/../../out", "artifacts//x", "rows/./x", "out", "artifacts\\x",
    "artifacts/model/x\x00y", "other/x", "rows/..",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_refused(archive, elsewhere, tmp_path, name):
    forged = _forged(archive, {name: b"x"})
    before = {one.name for one in tmp_path.rglob("*")}
    with pytest.raises(DataError):
        restore(forged, elsewhere)
    assert {one.name for one in tmp_path.rglob("*")} - before <= {"other"}


FORGERIES = {
    "a link": lambda path: _forged(path, {}, more=[(_link(tarfile.SYMTYPE), b"")]),
    "a hard link": lambda path: _forged(path, {}, more=[(_link(tarfile.LNKTYPE), b"")]),
    "a device": lambda path: _forged(path, {}, more=[(_link(tarfile.CHRTYPE), b"")]),
    "a file twice": lambda path: _forged(path, {}, more=[("rows/runs.jsonl", b"")]),
    "a file too many": lambda path: _forged(path, {}, more=[("rows/x.jsonl", b"")]),
    "a link in the place of a file": lambda path: _forged(
        path, {"artifacts/model/x/link": b""}, more=[(_link(tarfile.SYMTYPE), b"")]
    ),
    "a database as a run": lambda path: _forged(path, {"runs/workbench.db": b"x"}),
    "artifacts as a run": lambda path: _forged(path, {"runs/artifacts/x": b"x"}),
    "a table that nobody knows": lambda path: _forged(
        path, {"rows/sqlite_master.jsonl": b""}, manifest={"rows": {"sqlite_master": 0}}
    ),
    "a version of the schema": lambda path: _forged(
        path,
        {"rows/alembic_version.jsonl": b'{"version_num": "9999"}'},
        manifest={"rows": {"alembic_version": 1}},
    ),
    "a schema that never was": lambda path: _forged(path, {}, manifest={"schema": "0000"}),
    "a list of tables": lambda path: _forged(path, {}, manifest={"rows": ["runs"]}),
    "a file without a hash": lambda path: _forged(
        path, {}, manifest={"files": {"rows/runs.jsonl": {"bytes": 1}}}
    ),
    "a file in the place of a folder": lambda path: _forged(
        path, {"artifacts/model": b"x", "artifacts/model/x": b""}
    ),
    "a long name": lambda path: _forged(path, {f"runs/{'x' * 300}": b""}),
    **{
        f"rows of {line[:9]!r}": lambda path, line=line: _forged(path, {"rows/jobs.jsonl": line})
        for line in (b"{oops", b"5", b"null", b"\xff", b"[" * 99_999)
    },
    "no manifest": lambda path: _written(path, [("rows/x", b"")]),
    "a manifest of nonsense": lambda path: _written(path, [("manifest.json", b"[" * 99_999)]),
    "nothing": lambda path: _written(path, []),
}


def _written(path, entries):
    new = path.with_name("forged.tar.zst")
    _write(new, entries)
    return new


@pytest.mark.parametrize("forgery", list(FORGERIES))
def test_a_malicious_archive_leaves_nothing(archive, elsewhere, tmp_path, forgery):
    with pytest.raises(DataError):
        restore(FORGERIES[forgery](archive), elsewhere)
    assert not elsewhere.home.exists()
    assert list(elsewhere.home.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("artifacts", {"id": "../../../x"}), ("artifacts", {"kind": ".."}),
        ("artifacts", {"kind": "a/b"}), ("runs", {"folder": "home:/../x"}),
        ("runs", {"folder": "home:/"}), ("runs", {"more": 1}),
        ("runs", {"folder": None}), ("runs", {"id": None}), ("artifacts", {"id": "\ud800"}),
        ("artifacts", {"id": None}),
    ],
)  # fmt: skip
def test_rows_that_lead_out_are_refused(archive, elsewhere, tmp_path, table, change):
    name = f"rows/{table}.jsonl"
    first = json.loads(_read(archive)[name].splitlines()[0])
    forged = _forged(archive, {name: json.dumps(first | change).encode()})
    with pytest.raises(DataError):
        restore(forged, elsewhere)
    assert not elsewhere.home.exists()


def test_a_bomb_is_not_unpacked(archive, elsewhere, tmp_path):
    forged = _forged(archive, {"artifacts/model/x/zeros": bytes(20_000_000)})
    assert forged.stat().st_size < 300_000
    with pytest.raises(DataError, match="unpacks to 2"):
        restore(forged, elsewhere, most_bytes=1_000_000)
    lying = _read(forged)
    told = json.loads(lying["manifest.json"])
    told["files"]["artifacts/model/x/zeros"]["bytes"] = 10
    lying["manifest.json"] = json.dumps(told).encode()
    with pytest.raises(DataError, match="bytes, not 10"):
        restore(_written(archive, lying.items()), elsewhere, most_bytes=1_000_000)
    assert not elsewhere.home.exists()


def test_damage_anywhere_is_noticed(archive, elsewhere, tmp_path):
    data = archive.read_bytes()
    for number in range(12):
        at = len(data) * number // 12
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            archive.write_bytes(damaged)
            with pytest.raises((DataError, StoreError)):
                restore(archive, elsewhere)
            assert not elsewhere.home.exists()
    with pytest.raises(DataError, match="no backup"):
        restore(tmp_path / "none", elsewhere)


def test_a_newer_schema_is_refused_and_an_older_one_upgraded(archive, elsewhere, tmp_path):
    with pytest.raises(StoreError, match=r"schema 9999.*upgrade"):
        restore(_forged(archive, {}, manifest={"schema": "9999"}), elsewhere)
    old = plain_engine(f"sqlite:///{tmp_path / 'old.db'}")
    migrate(old, "0004")
    add_rows_0004(old)
    old.dispose()
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM experiments").fetchall()
    lines = [json.dumps(dict(row) | {"members": json.loads(row["members"])}) for row in rows]
    forged = _forged(
        archive, {"rows/experiments.jsonl": "\n".join(lines).encode()},
        manifest={"schema": "0004", "rows": {"experiments": len(rows)}},
    )  # fmt: skip
    restore(forged, elsewhere)
    store = open_store(elsewhere)
    assert store.runs.experiment("trial")["owner"] == "anna"
    store.engine.dispose()


def test_the_commands_do_both(full, elsewhere, tmp_path, monkeypatch):
    file = str(tmp_path / "store.tar.zst")
    monkeypatch.setenv("WORKBENCH_HOME", str(full.home))
    call = CliRunner().invoke(main, ["store", "backup", file])
    assert call.exit_code == 0, call.output
    monkeypatch.setenv("WORKBENCH_HOME", str(elsewhere.home))
    for status in (0, 2):
        call = CliRunner().invoke(main, ["store", "restore", file])
        assert call.exit_code == status, call.output
    call = CliRunner().invoke(main, ["store", "verify"])
    assert call.exit_code == 0, call.output
    assert as_user(full, "anna").artifacts.exists("execution", ids("anna")["execution"])
