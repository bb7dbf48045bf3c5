"""What artifacts must do wherever they are: one suite, run over every kind of location."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from workbench.core.errors import DataError, StoreError
from workbench.store.database import open_store
from workbench.store.marks import read_mark

ID = "a" * 64


def make(store, artifact_id=ID, *, kind="model", mend=False, text="content", **files):
    with store.artifacts.create(kind, artifact_id, {"n": 1}, mend=mend) as folder:
        (folder / "file").write_text(text)
        for name, content in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return store.artifacts.path(kind, artifact_id)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def quiet(*_):
    return None


class ArtifactContract:
    """Subclasses give ``settings``, of a store with an empty location."""

    @pytest.fixture
    def store(self, settings):
        opened = open_store(settings)
        yield opened
        opened.engine.dispose()

    @pytest.fixture
    def elsewhere(self, store, tmp_path):
        """The same store as another machine sees it, with an empty cache of its own."""
        settings = store.settings
        if settings.artifacts_url:
            settings = replace(settings, home=tmp_path / "elsewhere")
        opened = open_store(settings)
        yield opened
        opened.engine.dispose()

    def test_it_is_found_again_as_it_was_written_also_elsewhere(self, store, elsewhere):
        files = {"a__b": os.urandom(300_000), "a__ä ö": b"", "manifest.json": b"{}"}
        here = make(store, **files)
        assert elsewhere.artifacts.exists("model", ID)
        there = elsewhere.artifacts.path("model", ID)
        assert content(here) == content(there)
        assert content(there)["a/b"] == files["a__b"]
        assert there.name == ID[:32]
        assert elsewhere.artifacts.metadata("model", ID) == {"n": 1}
        assert elsewhere.artifacts.rows("model")[0]["metadata"] == {"n": 1}
        assert elsewhere.artifacts.problems("model", ID, deep=True) == []

    def test_an_empty_one_is_one(self, store, elsewhere):
        with store.artifacts.create("model", ID, {}):
            pass
        assert content(elsewhere.artifacts.path("model", ID)) == {}

    def test_the_same_id_twice_keeps_the_first(self, store, elsewhere):
        make(store, text="first")
        make(store, text="second")
        assert (elsewhere.artifacts.path("model", ID) / "file").read_text() == "first"

    def test_mending_replaces_it_for_those_who_have_it_too(self, store, elsewhere):
        make(store, text="damaged", old=b"x")
        elsewhere.artifacts.path("model", ID)
        make(store, text="whole", mend=True)
        for one in (store, elsewhere):
            assert content(one.artifacts.path("model", ID)) == {"file": b"whole"}
        assert store.artifacts.rows("model")[0]["metadata"] == {"n": 1}

    def test_a_block_that_raises_leaves_nothing(self, store):
        def write_half():
            with store.artifacts.create("model", ID, {}) as folder:
                (folder / "half").write_text("half")
                raise RuntimeError("no luck")

        with pytest.raises(RuntimeError):
            write_half()
        assert not store.artifacts.exists("model", ID)
        assert content(make(store)) == {"file": b"content"}

    def test_a_failed_mend_leaves_the_old_one(self, store, elsewhere):
        make(store, text="old")

        def mend():
            with store.artifacts.create("model", ID, {}, mend=True) as folder:
                (folder / "file").write_text("half")
                raise RuntimeError("no luck")

        with pytest.raises(RuntimeError):
            mend()
        assert (elsewhere.artifacts.path("model", ID) / "file").read_text() == "old"

    def test_killed_before_its_row_there_is_none_and_the_next_try_counts(
        self, store, elsewhere, monkeypatch
    ):
        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store.artifacts, "_add_row", killed)
            with pytest.raises(KeyboardInterrupt):
                make(store, text="lost")
        assert not elsewhere.artifacts.exists("model", ID)
        make(store, text="found")
        assert (elsewhere.artifacts.path("model", ID) / "file").read_text() == "found"

    def test_removed_it_is_gone_everywhere_and_can_be_made_again(self, store, elsewhere):
        make(store, kind="model")
        make(store, kind="judge")
        elsewhere.artifacts.path("model", ID)
        store.artifacts.remove("model", ID)
        assert not elsewhere.artifacts.exists("model", ID)
        with pytest.raises(DataError, match=r"no model .*newest: none"):
            elsewhere.artifacts.path("model", ID)
        assert elsewhere.artifacts.exists("judge", ID)
        assert content(make(store, text="again")) == {"file": b"again"}

    def test_packed_it_reads_as_before_and_takes_less(self, store, elsewhere):
        before = content(make(store, table=b"one line of many\n" * 5_000, d__e=b"x" * 10_000))
        assert store.artifacts.pack("model", ID, say=quiet)
        _, mark = read_mark(store.engine, "model", ID)
        assert mark.packed
        assert mark.stored < mark.bytes / 10
        for one in (store, elsewhere):
            assert content(one.artifacts.path("model", ID)) == before
        assert not store.artifacts.pack("model", ID, say=quiet)
        assert elsewhere.artifacts.problems("model", ID, deep=True) == []

    def test_what_does_not_shrink_stays_as_it_is(self, store):
        make(store, noise=os.urandom(50_000))
        assert not store.artifacts.pack("model", ID, say=quiet)
        assert read_mark(store.engine, "model", ID)[1].packed is False

    def test_a_packed_one_can_be_mended(self, store, elsewhere):
        make(store, table=b"line\n" * 5_000)
        store.artifacts.pack("model", ID, say=quiet)
        make(store, text="mended", mend=True)
        for one in (store, elsewhere):
            assert content(one.artifacts.path("model", ID)) == {"file": b"mended"}

    def test_an_expired_one_says_when_and_why_and_can_be_made_again(self, store, elsewhere):
        make(store)
        elsewhere.artifacts.path("model", ID)
        assert store.artifacts.expire("model", ID, policy="model: 90 days", say=quiet)
        assert not store.artifacts.exists("model", ID)
        assert store.artifacts.newest("model") == ""
        assert store.artifacts.rows("model") == []
        assert store.artifacts.resolve("model", "aaa") == ID
        for one in (store, elsewhere):
            with pytest.raises(DataError, match=r"was removed on 20\d\d-.* 'model: 90 days'"):
                one.artifacts.path("model", ID)
        assert not store.artifacts.expire("model", ID, policy="model: 90 days", say=quiet)
        make(store, text="again")
        assert (elsewhere.artifacts.path("model", ID) / "file").read_text() == "again"

    @pytest.mark.parametrize("what", ["pack", "expire"])
    def test_what_cannot_be_said_is_not_done(self, store, elsewhere, what):
        before = content(make(store, table=b"line\n" * 5_000))

        def full(*_):
            raise StoreError("the database is full")

        more = {"policy": "x"} if what == "expire" else {}
        with pytest.raises(StoreError, match="is full"):
            getattr(store.artifacts, what)("model", ID, say=full, **more)
        for one in (store, elsewhere):
            assert content(one.artifacts.path("model", ID)) == before

    def test_rests_of_killed_processes_go_and_nothing_else(self, store, elsewhere, monkeypatch):
        from workbench.store import rests

        make(store, kind="judge", table=b"line\n" * 5_000)
        store.artifacts.pack("judge", ID, say=quiet)
        make(store, table=b"line\n" * 5_000)

        def killed(*_):
            raise KeyboardInterrupt

        shelf = store.artifacts._shelf
        with monkeypatch.context() as patch:
            patch.setattr(shelf, "clear", killed)  # all is said, nothing is cleared
            with pytest.raises(KeyboardInterrupt):
                store.artifacts.pack("model", ID, say=quiet)
        arguments = (store.engine, shelf.root, shelf.remote)
        assert rests.sweep(*arguments) == 0  # may still be in use
        assert rests.sweep(*arguments, older_s=-1) == 1
        assert rests.sweep(*arguments, older_s=-1) == 0
        for kind in ("judge", "model"):
            assert len(content(elsewhere.artifacts.path(kind, ID))) == 2
