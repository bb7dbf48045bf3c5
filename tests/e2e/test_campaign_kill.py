"""kill -9 in the middle of an execution: the next process goes on and sends nothing twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from campaign_server import (
    IN_FLIGHT,
    LOST,
    PRICE,
    Campaign,
    Server,
    figures,
    paid,
    serve,
    test_set_of,
)
from workbench.campaign.executions import Execution
from workbench.store import schema

pytestmark = pytest.mark.slow

CASES, CONTROLS, KILLS = 2_000, 200, 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path) as running:
        yield running


def price_of(done: Execution) -> Decimal:
    """Return what the attempts that count were billed."""
    return sum((one.usd for one in done.attempts()), Decimal(0))


def check_kill(campaign: Campaign, before: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Check what a kill left; return what is stored now."""
    now, sent = campaign.stored(), campaign.sent()
    assert not before - now  # nothing that was stored is lost
    assert not now - sent  # and nothing made up
    return now


def test_one_execution_killed_twenty_times_ends_as_if_it_never_was(tmp_path, server) -> None:
    dice = random.Random("twenty kills")
    tests = test_set_of(CASES, CONTROLS)
    campaign = Campaign(tmp_path / "killed", server, tests)
    messages = sum(len(case.turns) + 1 for case in tests)
    stored: Counter[tuple[str, str]] = Counter()
    struck = losses = 0
    for number in range(KILLS):
        sent = campaign.sent()
        begun, left = server.count, len(tests) - stored.total()
        if number < KILLS - 4:  # in the middle of what is left, whatever the machine's speed
            share = max(1, left // (KILLS - number))
            strike_at = begun + dice.randrange(1, 2 * share + 1)
            struck += campaign.kill(lambda at=strike_at: server.count >= at)
        elif number < KILLS - 2:  # all is answered, the last of it is not stored
            whole = begun + sum(
                len(case.turns) + 1 for case in tests if ("one", case.id) not in stored
            )
            struck += campaign.kill(lambda at=whole: server.count >= at)
        else:  # the artifact is being made
            struck += campaign.kill(lambda: campaign.is_compacting)
        again = campaign.sent() - sent
        assert not stored.keys() & again.keys()  # what was stored is not sent again
        assert len(again) == again.total()  # nor anything twice by one process
        stored = check_kill(campaign, stored)
        lost = campaign.sent().keys() - stored.keys()
        assert len(lost) <= LOST
        losses += len(lost)
    assert struck >= KILLS - 4  # the last four may come too late

    done, _ = campaign.finish()
    sent = campaign.sent()
    assert stored.total() <= done.count == len(sent) == len(tests)
    assert sent.total() - len(tests) <= losses  # each repeat was lost by a kill
    assert (done.errors, price_of(done)) == (0, PRICE * messages)
    dollars, calls = paid(campaign)
    assert done.usd == dollars == PRICE * Decimal(calls)
    # Each message once, and those again whose answers a kill lost: they were paid for.
    assert messages <= calls <= server.count <= messages + 3 * losses
    assert campaign.stored() == Counter(dict.fromkeys(sent, 1))
    killed = figures(campaign)
    assert set(killed["hits"].values()) == {1}

    seen = server.count
    whole = Campaign(tmp_path / "whole", server, tests)
    whole.finish()
    assert server.count - seen == messages
    assert figures(whole) == killed
    assert paid(whole) == (PRICE * messages, messages)

    seen = server.count
    assert f"{done.count} of them from before" in campaign.finish()[1]
    assert server.count == seen
    with campaign.store() as store, store.engine.connect() as connection:
        assert connection.execute(schema.attempts.select()).first() is None


@pytest.mark.parametrize("seed", range(3))
def test_killed_once_with_several_targets_and_trials(tmp_path, server, seed) -> None:
    dice = random.Random(f"several {seed}")
    tests = test_set_of(150, 20)
    campaign = Campaign(tmp_path / "killed", server, tests, targets=("one", "two"))
    campaign.arguments += ["--trials", "2"]
    messages = 4 * sum(len(case.turns) + 1 for case in tests)
    strike_at = dice.randrange(1, messages)
    assert campaign.kill(lambda: server.count >= strike_at)
    before, stored = campaign.sent(), check_kill(campaign, Counter())
    assert (before - stored).total() <= LOST + IN_FLIGHT  # of each target so many in flight
    done, _ = campaign.finish()
    again = campaign.sent() - before
    want = Counter({(target, case.id): 2 for target in ("one", "two") for case in tests})
    assert again == want - stored
    assert campaign.stored() == want
    assert (done.count, done.errors, price_of(done)) == (want.total(), 0, PRICE * messages)
    dollars, calls = paid(campaign)
    assert done.usd == dollars == PRICE * Decimal(calls)
    assert messages <= calls <= server.count
    figures(campaign)


@pytest.mark.parametrize("delay_ms", [0, 5, 40])
def test_killed_while_it_is_compacted_it_sends_nothing_more(tmp_path, server, delay_ms) -> None:
    tests = test_set_of(300, 0)
    campaign = Campaign(tmp_path / "killed", server, tests)

    def when() -> bool:
        is_so_far = campaign.is_compacting
        if is_so_far:
            time.sleep(delay_ms / 1000)
        return is_so_far

    campaign.kill(when)
    sent = campaign.sent()
    assert campaign.stored() == sent == Counter(dict.fromkeys(sent, 1))
    done, printed = campaign.finish()
    assert "300 of them from before" in printed
    assert campaign.sent() == sent
    assert (done.count, done.errors) == (300, 0)
    figures(campaign)
