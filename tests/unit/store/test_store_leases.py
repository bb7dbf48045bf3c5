"""Leases: one holder at a time, told in time, and shut out when it is late."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, select, update

from lease_checks import check_one_holder_at_a_time
from workbench.core.errors import LeaseHeld, StoreError
from workbench.store import schema
from workbench.store.leases import hold, is_held
from workbench.store.transaction import transaction

_HOLDER = """
import os, sys, time
from workbench.core.settings import read_settings
from workbench.store.database import open_store
from workbench.store.leases import hold
store = open_store(read_settings({"WORKBENCH_HOME": sys.argv[1], "WORKBENCH_USER": "t"}))
with hold(store.engine, "work", holder="child", seconds=600):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holds_it_at_a_time(store):
    check_one_holder_at_a_time(store.engine)


def test_who_is_refused_reads_who_has_it(store):
    with hold(store.engine, "shard 7", holder="anna on host-1"):
        with pytest.raises(LeaseHeld, match=r"'shard 7' is held by 'anna on host-1'; wait"):
            hold(store.engine, "shard 7", holder="bo").__enter__()
        with hold(store.engine, "shard 8", holder="bo"):  # another name is another lease
            pass
    with hold(store.engine, "shard 7", holder="bo"):  # given back
        pass


def test_it_is_renewed_for_as_long_as_the_block_lasts(store):
    with hold(store.engine, "work", holder="a", seconds=0.6) as lease:
        time.sleep(1.5)
        assert not lease.lost.is_set()
        assert is_held(store.engine, "work", lease.token)
        with pytest.raises(LeaseHeld):
            hold(store.engine, "work", holder="b").__enter__()
    assert not is_held(store.engine, "work", lease.token)


def test_a_holder_without_database_is_told_before_another_may_begin(store):
    """Its renewals hang, as when the network is cut: no call of its own comes back."""
    cut, healed = threading.Event(), threading.Event()

    def hang(_connection, _cursor, statement, *_):
        if cut.is_set() and threading.current_thread() is not threading.main_thread():
            healed.wait(10)
            raise StoreError("cut")

    event.listen(store.engine, "before_cursor_execute", hang)
    with hold(store.engine, "work", holder="a", seconds=1) as late:
        cut.set()
        assert late.lost.wait(5)
        with pytest.raises(LeaseHeld):  # told before it ends
            hold(store.engine, "work", holder="b").__enter__()
        with hold(store.engine, "work", holder="b", patience_s=5) as taken:
            refused = pytest.raises(LeaseHeld, match="went to another")
            with refused, transaction(store.engine) as connection:
                late.fence(connection)
            with transaction(store.engine) as connection:
                taken.fence(connection)
        healed.set()


def test_a_dead_process_of_this_machine_holds_nothing(store):
    command = [sys.executable, "-c", _HOLDER, str(store.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        with transaction(store.engine) as connection:
            token = connection.execute(select(schema.leases.c.holder)).scalar_one()
        assert is_held(store.engine, "work", token)
        with pytest.raises(LeaseHeld, match="'child'"):
            hold(store.engine, "work", holder="b").__enter__()
        child.kill()
        child.wait()
        assert not is_held(store.engine, "work", token)
        with hold(store.engine, "work", holder="b"):
            pass


def test_of_another_machine_nothing_is_known(store):
    with hold(store.engine, "work", holder="a"):
        with transaction(store.engine) as connection:
            connection.execute(update(schema.leases).values(process="elsewhere:1:1.00"))
        with pytest.raises(LeaseHeld):
            hold(store.engine, "work", holder="b").__enter__()


def test_a_lease_that_was_taken_away_is_lost_at_the_next_renewal(store):
    with hold(store.engine, "work", holder="a", seconds=1) as lease:
        with transaction(store.engine) as connection:
            connection.execute(update(schema.leases).values(holder="b"))
        assert lease.lost.wait(2)
    with transaction(store.engine) as connection:  # nor is what is another's given back
        assert connection.execute(select(schema.leases.c.holder)).scalar_one() == "b"


def test_who_waits_gets_it_when_it_is_free(store):
    with ThreadPoolExecutor(1) as pool:
        with hold(store.engine, "work", holder="a"):
            waits = pool.submit(
                lambda: hold(store.engine, "work", holder="b", patience_s=10).__enter__()
            )
            time.sleep(0.3)
            assert not waits.done()
        assert not waits.result(5).lost.is_set()
