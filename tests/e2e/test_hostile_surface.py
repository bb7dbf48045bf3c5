"""A hundred hostile texts through panels, pages and the stream, in a real browser: only text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import risk_fakes
from browser import Notebook, Watch, chromium, lab, picture, visit
from campaign_fakes import make_case
from finding_fakes import make_finding
from hostile_texts import HOSTILE
from notebook_projects import make_project
from running_server import TOKENS, serve
from workbench.campaign import testsets
from workbench.core.plain import storable
from workbench.notebook import widgets
from workbench.risk.register import recorded, save_assessment
from workbench.store.campaigns import add_attempts
from workbench.store.database import Store
from workbench.store.events import tell
from workbench.store.findings import add_findings
from workbench.store.jobs import Job, add_job, claim_job, finish_job, tell_job
from workbench.store.records import Attempt, LedgerRow, Run, TestSet, now
from workbench.store.risks import record

PANELS = tuple(widgets.__all__)
TEXTS = tuple(map(storable, HOSTILE))
EXECUTION = "e" * 64
EVIL = ":is(script, iframe, img, object, embed, link, base, form, [onload], [onerror], [onclick])"
WAIT_MS = 60_000
ANSWERED = """async () => {
  const { kernel } = jupyterapp.shell.currentWidget.context.sessionContext.session;
  await kernel.requestKernelInfo(); // it answers in turn
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
"""Until what was asked of the kernel is on the page."""


def fill(store: Store) -> None:
    """Give every panel texts to show: experiments, cases, attempts, findings, risks."""
    user = store.settings.user
    for number, text in enumerate(TEXTS):
        run = Run(
            id=f"run-{number}", experiment=f"{text[:150]}{number}", step=text[:200],
            member=text[:200], notebook="x", phase="training", fingerprint="f", parameters={},
            state="failed", owner=user, folder="", started_at=now(), error=text,
        )  # fmt: skip
        store.runs.add(run)
        store.runs.set_experiment(
            run.experiment, file="gone", members={text: [run.id]}, state="failed", owner=user
        )
    cases = tuple(
        make_case(n, prompt=text, goal=text, turns=(text,), plugin=text[:150] or "x", category=text)
        for n, text in enumerate(TEXTS)
    )
    testsets.save(store, TestSet(cases=cases))
    told = {"test_set": "t" * 64, "targets": list(TEXTS[:9]), "total": len(TEXTS)}
    tell(store, "attack_run_started", EXECUTION, told)
    attempts = [
        Attempt(
            execution=EXECUTION, case_id=f"{n:064x}", target=text[:200], sent=text, received=text,
            decision=text[:30], scores={}, success=bool(n % 2), latency_ms=1.0,
            error=text if n % 5 == 0 else "",
        )
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    add_attempts(store.engine, attempts)
    found = [
        make_finding(
            n, plugin=text[:60], strategy=text[:60], target=text[:60], summary=text, sent=text,
            received=text, suggested_label=text[:30], owner=text[:20],
        )
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    add_findings(store.engine, found)
    fill_register(store)
    bills = [
        LedgerRow(
            who=user, job=f"job-{n}", experiment=text[:200], phase="execution", resource=text[:200],
            quantity=1.0, unit="call", usd=Decimal(1), price_version="declared", work=text[:200],
            note=text,
        )
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    store.ledger.add(bills)


def fill_register(store: Store) -> None:
    rows = [
        risk_fakes.make_risk(
            n, subject=text[:100] or "x", title=text, asset=text[:60] or "x", component=text,
            owner=text[:20], source=text, missing=[text], reasons=[text], explanation=text,
        )
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    table = risk_fakes.make_risks(*rows)
    save_assessment(store, table, {"assessment": "a" * 64, "today": "2026-01-01"})
    record(
        store.engine, recorded(table), assessment="a" * 64, today=date(2026, 1, 1),
        who=store.settings.user,
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def ran(page: Any) -> bool:
    """Return whether any of the texts got its way."""
    return page.evaluate("window.probe") is not None or page.locator("[data-probe]").count() > 0


def test_static_twins_of_all_panels_are_text(browser: Any, store: Store, tmp_path: Path) -> None:
    fill(store)
    file = tmp_path / "twins.html"
    shown = [getattr(widgets, name)(store).to_html() for name in PANELS]
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Twins</title>'
    file.write_text(head + "\n".join(shown), encoding="utf-8")
    watch = Watch()
    with visit(browser, watch) as page:
        page.goto(file.as_uri())
        assert page.locator("section.wb").count() == len(PANELS)
        assert page.locator(f"section.wb {EVIL}").count() == 0
        assert not ran(page)
        picture(page, "hostile-twins", tmp_path)
        page.evaluate("document.body.innerHTML = '<img src=x onerror=window.probe=1>'")
        page.wait_for_function("window.probe === 1")  # the trap would have sprung
    assert (watch.asked[:1], watch.errors) == ([file.as_uri()], [])
    assert set(watch.asked) <= {file.as_uri(), (tmp_path / "x").as_uri()}


def test_live_panels_are_text(browser: Any, tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    with lab(tmp_path) as running:
        fill(running.store)
        sources = [
            f"from workbench.notebook.widgets import {name}\nshown_{name} = {name}()\nshown_{name}"
            for name in PANELS
        ]
        path = running.write("hostile", [*sources, 'print("all-cells" + "-ran")'])
        watch = Watch()
        with visit(browser, watch) as page:
            notebook = Notebook(page, running, path)
            notebook.run_all("all-cells-ran")
            for at, name in enumerate(PANELS):
                cell = notebook.show(at)
                cell.locator(".wb-block").first.wait_for(timeout=WAIT_MS)
                walk(cell, page)
                assert cell.locator(f".wb {EVIL}").count() == 0, name
                assert not ran(page), name
                picture(page, f"hostile-{name}", tmp_path)
    assert watch.errors == []
    assert watch.outside() == []


def walk(cell: Any, page: Any) -> None:
    """Walk through the first rows of a panel's table and open each; to its end, too."""
    grid = cell.get_by_role("grid")
    if not grid.count():
        return
    grid.first.focus()
    for key in ["ArrowDown", "Enter"] * 8 + ["End", "Enter", "PageUp", "Enter"]:
        page.keyboard.press(key)
    page.evaluate(ANSWERED)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A server whose Anna has hostile test sets and jobs, and one of the jobs."""
    with serve(tmp_path_factory.mktemp("hostile")) as server:
        store = server.store_of("anna")
        fill(store)
        request = {"config": {"plugins": list(TEXTS)}, "note": {text: text for text in TEXTS}}
        added = add_job(store.engine, Job(kind="generate", owner="anna", request=request))
        assert claim_job(store.engine, added.id, owner="anna")
        tell_job(store.engine, added.id, done=1, total=2, note=TEXTS[20])
        result = {text: text for text in TEXTS[:20]}
        finish_job(store.engine, added.id, state="failed", result=result, error=TEXTS[22])
        yield server, added.id


def test_pages_of_the_server_are_text(browser: Any, pages: Any, tmp_path: Path) -> None:
    server, job = pages
    watch = Watch()
    (test_set,) = testsets.list_test_sets(server.store_of("anna"))
    with visit(browser, watch) as page:
        for path in ("", f"sets/{test_set.id}", f"jobs/{job}", f"sets/{test_set.id}?limit=200"):
            sign = "&" if "?" in path else "?"
            page.goto(f"{server.url}/workbench/{path}{sign}token={TOKENS['anna']}")
            page.locator("main h1").wait_for()
            evil = EVIL.replace(" form,", "")
            assert page.locator(f"main {evil}, body > {evil}").count() == 0
            assert not ran(page)
            name = path.partition("/")[0] or "sets"
            picture(page, f"hostile-page-{name}{'-all' * ('limit' in path)}", tmp_path)
        assert TEXTS[0] in page.inner_text("main")
    assert watch.errors == []
    assert watch.outside() == []


def test_the_stream_carries_texts_as_they_are(browser: Any, pages: Any) -> None:
    server, job = pages
    watch = Watch()
    with visit(browser, watch, bypass_csp=True) as page:
        page.goto(f"{server.url}/workbench/api/openapi.json?token={TOKENS['anna']}")
        asked = [f"execution/{EXECUTION}", f"job/{job}"]
        told = page.evaluate(
            """topics => new Promise((done) => {
              const socket = new WebSocket(`ws://${location.host}/workbench/api/stream`);
              socket.onopen = () => socket.send(JSON.stringify({ subscribe: topics }));
              socket.onmessage = ({ data }) => done(data);
            })""",
            asked,
        )
        execution, of_job = json.loads(told)["snapshot"]
        assert not ran(page)
    assert set(execution["targets"]) <= {text[:200] for text in TEXTS}
    assert of_job["error"][:20] == TEXTS[22][:20]
    assert watch.errors == []
    assert watch.outside() == []
