"""Whose a process is, whatever the clock says and however machines are called."""

from __future__ import annotations

import os
import sys

import psutil
import pytest

from workbench.store import owners
from workbench.store.owners import Owners, process_named, this_process
from workbench.store.records import now


def alive(owner, *, at=None):
    return Owners(lambda: 0.0).is_alive(owner, at=at or now())


def test_this_process_lives_and_no_other_of_its_number_does():
    host, pid, born = this_process().rsplit(":", 2)
    assert alive(this_process())
    assert alive(process_named(os.getppid()))
    assert not alive(f"{host}:{pid}:{float(born) - 60:.2f}")  # the number was used before
    assert not alive(f"{host}:999999999:1.00")
    assert not alive("nobody", at="1969-12-31T00:00:00+00:00")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil itself keeps it steady")
@pytest.mark.parametrize("by_s", [-7_200, 3_600])
def test_a_clock_that_is_set_kills_nobody(monkeypatch, by_s):
    mine, real = this_process(), psutil._pslinux.boot_time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: real() + by_s)
    assert alive(mine)


def test_of_a_namesake_nothing_is_known(monkeypatch):
    """E.g. another container on the same host, started with the same host name."""
    monkeypatch.setattr(owners, "_host", lambda: "box/0123abcd/4026531836")
    theirs = process_named(os.getpid()).replace(str(os.getpid()), "999999999")
    monkeypatch.setattr(owners, "_host", lambda: "box/0123abcd/4026532999")
    assert alive(theirs)
    assert not alive(theirs, at="1969-12-31T00:00:00+00:00")
