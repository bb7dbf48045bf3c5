"""What a notebook says while it attacks."""

from __future__ import annotations

from decimal import Decimal

from workbench.campaign.runner import Progress
from workbench.notebook.attempts import tell_attempts


def told(steps, *, total):
    """Return the lines for (second, attempts done)."""
    now, lines = [0.0], []
    show = tell_attempts(every_s=10, clock=lambda: now[0], tell=lines.append)
    for now[0], done in steps:
        show(Progress(target="shop", done=done, total=total, errors=1, successes=2,
                      usd=Decimal("0.5")))  # fmt: skip
    return lines


def test_it_tells_the_first_the_last_and_one_in_ten_seconds_between():
    lines = told([(second, 10 * second) for second in range(1, 36)], total=350)
    assert [line.split(" of ")[0] for line in lines] == ["10", "110", "210", "310", "350"]
    assert lines[1] == (
        "110 of 350 attempts, now on shop: 1 errors, 2 attacks past a defense, $0.50 spent, "
        "about 24 s left"
    )
    assert "left" not in lines[0] + lines[-1]


def test_what_an_earlier_process_did_does_not_shorten_what_is_left():
    lines = told([(100, 900), (110, 910)], total=1000)
    assert "about 90 s left" in lines[1]
