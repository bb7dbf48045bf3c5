"""Events: in the order in which they were told, the newest where not all are asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from workbench.store.events import add_events, events
from workbench.store.records import EVENT_KINDS, Event
from workbench.store.schema import metadata

told_ = st.lists(
    st.builds(
        Event, kind=st.sampled_from(EVENT_KINDS), subject=st.sampled_from("st"),
        who=st.just("anna"), details=st.dictionaries(st.text(max_size=3), st.integers(0, 9)),
        at=st.sampled_from(["2026-01-01", "2026-01-02", "2026-01-03"]),
    ),
    max_size=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    made = create_engine("sqlite://")
    yield made
    made.dispose()


@given(
    told=told_, limit=st.integers(1, 20),
    asked=st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["", *EVENT_KINDS]), "subject": st.sampled_from(["", "s"]),
            "since": st.sampled_from(["", "2026-01-02"]),
        }
    ),
)  # fmt: skip
def test_what_is_asked_for_comes_in_order(engine, told, asked, limit):
    metadata.drop_all(engine)
    metadata.create_all(engine)
    add_events(engine, told[:3])
    add_events(engine, told[3:])
    wanted = [
        one
        for one in told
        if asked["kind"] in {"", one.kind}
        and asked["subject"] in {"", one.subject}
        and one.at >= asked["since"]
    ]
    found = events(engine, **asked, limit=limit)
    assert found == wanted[-limit:]


def test_nothing_told_is_no_error(store):
    add_events(store.engine, [])
    assert events(store.engine) == []
