"""Fixtures: one odd upstream for all tests of a module, as new for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from guard_server import OddUpstream


@pytest.fixture(scope="module")
def odd() -> Iterator[OddUpstream]:
    with OddUpstream().serve() as upstream:
        yield upstream


@pytest.fixture
def upstream(odd: OddUpstream) -> OddUpstream:
    odd.handler = None
    odd.requests.clear()
    return odd
