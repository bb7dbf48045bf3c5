"""Every panel once in a real kernel: what it leaves in a notebook, what exports keep of it."""

from __future__ import annotations

import json
import re
import threading

import nbformat
import pytest

import report_results as made
from campaign_fakes import make_set
from hostile_texts import scripts_in
from notebook_projects import write_notebook
from workbench.campaign import testsets
from workbench.core.settings import read_settings
from workbench.data.build import build_pairs
from workbench.data.config import BuildConfig
from workbench.notebook import widgets
from workbench.notebook.executor import execute_notebook
from workbench.report.document import Frame, document
from workbench.report.notebooks import notebook_page
from workbench.store.database import open_store

SHOW = """
import threading, time
from workbench.notebook import widgets
panels = [getattr(widgets, name)() for name in {names}]
for panel in panels:
    panel.follow(0.05)
    display(panel)
time.sleep(0.5)
for panel in panels:
    panel.close()
left = [one.name for one in threading.enumerate() if "_follow" in one.name]
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The text of a notebook that showed every panel, and what it returned."""
    root = tmp_path_factory.mktemp("panels")
    variables = {"WORKBENCH_HOME": str(root / "home"), "WORKBENCH_USER": "tester"}
    variables |= {"WORKBENCH_RUN_ID": "run-1", "WORKBENCH_RUN_FOLDER": str(root / "run")}
    settings = read_settings(variables)
    store = open_store(settings)
    build_pairs(store, BuildConfig(target_pairs=120))
    testsets.save(store, make_set(4, 1))
    made.fill(store, made.results())
    store.engine.dispose()
    result = "{'kind': 'test', 'left': left}"
    notebook = write_notebook(root, "all", body=SHOW.format(names=widgets.__all__), result=result)
    outcome = execute_notebook(
        notebook, parameters={}, settings=settings, folder=root / "run", cwd=root, threads=1,
        timeout_s=120, heartbeat=lambda _: None, cancelled=threading.Event(),
    )  # fmt: skip
    assert outcome.error == ""
    return (root / "run/notebook.ipynb").read_text(encoding="utf-8"), outcome.result


def test_each_panel_leaves_a_twin_that_asks_nobody(shown):
    text, result = shown
    outputs = [one for cell in json.loads(text)["cells"] for one in cell.get("outputs", [])]
    data = [one["data"] for one in outputs if one["output_type"] == "display_data"]
    assert len(data) == len(widgets.__all__) == 9
    for one in data:
        html = "".join(one["text/html"])
        assert "application/vnd.jupyter.widget-view+json" in one
        assert scripts_in(html) == []
        assert not re.search(r"https?://|url\(|@import|\ssrc=", html)
    assert [one for one in outputs if one["output_type"] in ("error", "stream")] == []
    assert result["left"] == []


@pytest.mark.filterwarnings("ignore")
def test_an_export_keeps_the_twins(shown):
    from nbconvert import HTMLExporter

    text, _ = shown
    html, _ = HTMLExporter().from_notebook_node(nbformat.reads(text, as_version=4))
    assert html.count('class="wb"') == len(widgets.__all__)
    assert "widget-view+json" not in html


def test_the_report_keeps_the_twins(shown):
    text, _ = shown
    page = notebook_page(made.make_run("run-1", "all", "all"), text)
    html = document(page.name, [page], Frame(title="all", heading="")).decode()
    for title in ("Experiments", "Pair sets", "My test sets", "Triage", "Risk register"):
        assert f"<p>{title}</p>" in html
    assert "<script" not in html
    assert page.notes == []
