"""The pages and the socket of the server in a real browser, as two people see them."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Watch, chromium, picture, visit
from running_server import TOKENS, RunningServer, serve
from workbench.campaign.rehearsal import Rehearsal

pytestmark = pytest.mark.timeout(600)

WAIT_MS = 90_000
LATENCY_S = 1.0
"""Of each answer: there has to be time to stop an execution, and to watch it."""
MOST_BYTES = 200
"""Of a diff that tells how far a job is, in the median."""
FOLLOW = """([topics, from]) => {
  const put = (state, path, value) => {
    if (!path.length) return value.length ? value[0] : null;
    const [key, ...rest] = path;
    const copy = Array.isArray(state) ? [...state] : { ...state };
    if (rest.length) copy[key] = put(copy[key], rest, value);
    else if (value.length) copy[key] = value[0];
    else if (Array.isArray(copy)) copy.length = key;
    else delete copy[key];
    return copy;
  };
  const heard = (window.heard ??= { sizes: [], snapshots: 0, resumed: 0, problems: [] });
  const socket = new WebSocket(`ws://${location.host}/workbench/api/stream`);
  window.cut = () => socket.close();
  socket.onopen = () => {
    socket.send(JSON.stringify({ subscribe: topics, ...(from ? { from: heard.seq } : {}) }));
  };
  socket.onmessage = ({ data }) => {
    const told = JSON.parse(data);
    if (told.problem) { heard.problems.push(told.problem); return; }
    if (told.snapshot) Object.assign(heard, { topics: told.topics, state: told.snapshot });
    heard.snapshots += Boolean(told.snapshot);
    for (const [path, ...value] of told.diffs ?? []) heard.state = put(heard.state, path, value);
    if (told.diffs) heard.resumed += Boolean(from);
    if (told.diffs?.every(([path]) => path[1] === "progress")) heard.sizes.push(data.length);
    heard.seq = told.seq;
  };
}"""
"""What a client does with the stream, as docs/server.md and ``server.diffs`` tell it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest.fixture(scope="module")
def shop() -> Iterator[Rehearsal]:
    with Rehearsal(latency_s=LATENCY_S).serve_in_thread() as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: RunningServer, shop: Rehearsal) -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    assert made.errors == []
    assert made.outside() == []


def enter(page: Any, server: RunningServer, who: str, path: str = "") -> Any:
    """Open a page of the extension with somebody's token, as a link in a mail has it."""
    return page.goto(f"{server.url}/workbench/{path}?token={TOKENS[who]}")


def make_test_set(page: Any, most: int) -> str:
    """Fill in the form of my test sets and return the address of what came of it."""
    page.get_by_label(re.compile("^Plugins")).select_option(["pii", "prompt-injection-direct"])
    page.get_by_label(re.compile("^Strategies")).fill("plain base64")
    page.get_by_label("Most cases").fill(str(most))
    page.get_by_role("button", name=re.compile("^Make it")).click()
    link = page.get_by_role("link", name="Its test set")
    link.wait_for(timeout=WAIT_MS)  # the page loads itself anew
    link.click()
    page.get_by_role("heading", name="Cases").wait_for()
    return page.url


def execute(page: Any, shop: Rehearsal) -> None:
    """Fill in the form of a test set; the page of the job is shown then."""
    page.get_by_label(re.compile("^Providers")).fill(f"{shop.base_url}/ask")
    page.get_by_label("Judges").select_option("rules")
    page.get_by_role("button", name=re.compile(r"^Send \d+ cases")).click()
    page.get_by_role("heading", name=re.compile("^Execute: ")).wait_for(timeout=WAIT_MS)


def test_a_test_set_is_made_executed_stopped_and_gone_on_with(
    server: RunningServer, shop: Rehearsal, browser: Any, watch: Watch, tmp_path: Path
) -> None:
    with visit(browser, watch) as page:
        enter(page, server, "anna")
        page.get_by_text("None yet. Make one below.").wait_for()
        picture(page, "server-empty", tmp_path)
        made = make_test_set(page, 40)
        picture(page, "server-set", tmp_path)
        execute(page, shop)
        page.get_by_role("progressbar").wait_for(timeout=WAIT_MS)
        picture(page, "server-job-running", tmp_path)
        page.get_by_role("button", name=re.compile("^Stop it")).click()
        more = page.get_by_role("button", name=re.compile("^Go on with it"))
        more.wait_for(timeout=WAIT_MS)
        page.get_by_role("heading", name="Execute: aborted").wait_for()
        picture(page, "server-job-aborted", tmp_path)
        more.click()
        page.get_by_role("heading", name="Execute: succeeded").wait_for(timeout=WAIT_MS)
        picture(page, "server-job-done", tmp_path)
        resumed = re.search(r'"resumed": (\d+)', page.inner_text("main"))
        assert resumed
        assert int(resumed[1]) > 0  # what was stored was not sent again
        job = page.url
        page.get_by_role("link", name="My test sets").click()
        page.get_by_role("link", name=made.rpartition("/")[2][:12]).wait_for()
        picture(page, "server-sets", tmp_path)
        assert page.locator("script").count() == 0
    with visit(browser, watch) as page:
        enter(page, server, "ben")
        page.get_by_text("None yet. Make one below.").wait_for()
        page.get_by_role("listitem").get_by_text("None yet.").wait_for()
        for theirs in (made, job):
            answer = page.goto(theirs.partition("?")[0])
            assert answer.status == 404
            told = page.content()  # the id that was asked for, and no word of what it stands for
            assert [one for one in ("base64", shop.base_url, "anna") if one in told] == []
        picture(page, "server-not-yours", tmp_path)
        assert page.request.get(f"{server.url}/workbench/api/redteam/datasets").json() == []


def test_a_form_without_its_word_and_nobody_are_refused(
    server: RunningServer, browser: Any, watch: Watch, tmp_path: Path
) -> None:
    with visit(browser, watch) as page:
        enter(page, server, "anna")
        page.evaluate("document.querySelectorAll('[name=_xsrf]').forEach(one => one.remove())")
        with page.expect_navigation() as led:
            page.get_by_role("button", name=re.compile("^Make it")).click()
        assert led.value.status == 403
        page.get_by_role("alert").wait_for()
        picture(page, "server-refused", tmp_path)
    with visit(browser, watch) as page:
        page.goto(f"{server.url}/workbench/")
        assert "/login" in page.url
        assert "test set" not in page.inner_text("body").lower()


@pytest.mark.parametrize(
    "look",
    [
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 390, "height": 844}}, id="phone"),
        pytest.param({"java_script_enabled": False}, id="without-scripts"),
    ],
)
def test_pages_are_read_everywhere(
    server: RunningServer, browser: Any, watch: Watch, tmp_path: Path, look: dict[str, Any]
) -> None:
    with visit(browser, watch, **look) as page:
        enter(page, server, "anna")
        page.get_by_role("heading", name="My test sets").wait_for()
        if look.get("java_script_enabled", True):
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        picture(page, f"server-{'-'.join(look)}", tmp_path, full_page=True)


def test_the_stream_tells_a_snapshot_then_diffs_and_resumes(
    server: RunningServer, shop: Rehearsal, browser: Any, watch: Watch
) -> None:
    # the pages' own policy lets no script connect; what other pages may is asked here
    with visit(browser, watch, bypass_csp=True) as page:
        enter(page, server, "anna")
        make_test_set(page, 32)
        execute(page, shop)
        job = page.url.rpartition("/")[2].partition("?")[0]
        page.goto(f"{server.url}/workbench/api/openapi.json")  # does not load itself anew
        topics = ["cost", "events", f"job/{job}"]
        page.evaluate(FOLLOW, [topics, False])
        at = topics.index(f"job/{job}")
        done = f"window.heard?.state?.[{at}]?.progress?.done"
        page.wait_for_function(f"{done} > 2 && window.heard.sizes.length", timeout=WAIT_MS)
        before = page.evaluate("window.heard")
        assert (before["snapshots"], before["topics"]) == (1, topics)
        page.evaluate("window.cut()")
        address = f"{server.url}/workbench/api/jobs/{job}"
        done = before["state"][at]["progress"]["done"]
        until = time.monotonic() + WAIT_MS / 1e3
        while page.request.get(address).json()["done"] <= done:  # until something is missed
            assert time.monotonic() < until
            page.wait_for_timeout(200)
        assert page.evaluate("window.heard.seq") == before["seq"]
        page.evaluate(FOLLOW, [topics, True])
        page.wait_for_function(f"window.heard.state[{at}].state === 'succeeded'", timeout=WAIT_MS)
        heard = page.evaluate("window.heard")
        assert heard["snapshots"] == 1  # none was needed again
        assert heard["resumed"] > 0
        assert heard["problems"] == []
        assert statistics.median(heard["sizes"]) <= MOST_BYTES
        told = page.request.get(address).json()
        followed = heard["state"][at]
        assert followed["state"] == told["state"]
        assert followed["progress"]["done"] == told["done"] == told["total"]
    assert any(url.startswith("ws://127.0.0.1") for url in watch.asked)


def test_the_stream_of_another_says_nothing(
    server: RunningServer, browser: Any, watch: Watch
) -> None:
    with server.client("anna") as client:
        job = client.get("/workbench/api/jobs").json()[0]["jobId"]
    with visit(browser, watch, bypass_csp=True) as page:
        enter(page, server, "ben", "api/openapi.json")
        page.evaluate(FOLLOW, [[f"job/{job}", "jobs"], False])
        page.wait_for_function("window.heard?.snapshots === 1", timeout=WAIT_MS)
        assert page.evaluate("window.heard.state") == [None, {}]
