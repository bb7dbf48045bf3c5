"""Pages: self-contained, escaped, honest about what is missing, and cheap when nothing changed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import report_results as made
from workbench.core.errors import ConfigError
from workbench.core.settings import read_settings
from workbench.report.html import render
from workbench.store.database import Store, open_store

PAGES = ("index", "data", "scaling", "frontier", "campaign", "risk", "cost")
CONTENT = re.compile(r"<script[^>]*>.*?</script>|<style>.*?</style>", re.DOTALL)


class Document(HTMLParser):
    """Elements with attributes, scripts with contents, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page(folder: Path, name: str) -> Document:
    return Document((folder / f"{name}.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pages of a finished experiment; nobody may change them."""
    home = tmp_path_factory.mktemp("finished")
    store = open_store(read_settings({"WORKBENCH_HOME": str(home / "home")}))
    made.fill(store, made.results())
    render(store, "quickstart", home / "report")
    store.engine.dispose()
    return home / "report"


@pytest.fixture
def folder(store: Store, tmp_path: Path) -> Path:
    made.fill(store, made.results())
    render(store, "quickstart", tmp_path / "report")
    return tmp_path / "report"


def declared(document: Document) -> int:
    return int(
        next(attributes["data-figures"] for tag, attributes in document.elements if tag == "html")
    )


@pytest.mark.parametrize("name", PAGES)
def test_page_is_self_contained(finished: Path, name: str) -> None:
    document = page(finished, name)
    assert (finished / f"{name}.html").stat().st_size <= 6_000_000
    for tag, attributes in document.elements:
        assert "src" not in attributes
        assert tag not in {"iframe", "object", "embed", "base", "form"}
        if "href" in attributes:
            assert attributes["href"] in {f"{one}.html" for one in PAGES} | {"data:,", "#content"}
    assert "not as this version writes it" not in document.text
    assert "Nothing here yet" not in document.text


@pytest.mark.parametrize("name", PAGES)
def test_policy_allows_exactly_the_scripts_of_the_page(finished: Path, name: str) -> None:
    document = page(finished, name)
    policy = next(
        attributes["content"]
        for _, attributes in document.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    executed = [
        text
        for attributes, text in document.scripts
        if attributes.get("type") != "application/json"
    ]
    digests = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in executed
    }
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    # plotly.js once, the boot script, and the one that sorts
    assert len(executed) == (2 if declared(document) else 0) + (name == "risk")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-inline" not in policy.split("style-src")[0]


@pytest.mark.parametrize("name", PAGES)
def test_figures_declared_are_figures_given(finished: Path, name: str) -> None:
    document = page(finished, name)
    blocks = [
        text for attributes, text in document.scripts if attributes.get("class") == "figure-data"
    ]
    assert len(blocks) == declared(document)
    for block in blocks:
        assert {"data", "layout"} == json.loads(block).keys()
    fallbacks = [one for _, one in document.elements if one.get("class") == "fallback"]
    assert len(fallbacks) == len(blocks)


def test_every_table_has_a_caption(finished: Path) -> None:
    for name in PAGES:
        tags = [tag for tag, _ in page(finished, name).elements]
        assert tags.count("table") == tags.count("caption")
        following = [tags[at + 1] for at, tag in enumerate(tags) if tag == "table"]
        assert set(following) <= {"caption"}


def test_first_page_tells_the_story_in_ten_numbers(finished: Path) -> None:
    document = page(finished, "index")
    assert sum(one.get("class") == "fact" for _, one in document.elements) == 10
    for expected in (
        "2,000",
        "34.0\u00a0%",
        "31.0\u00a0%",
        "6.7\u00a0%",
        "$0.00370",
        "Sanitizer minus ridge",
    ):
        assert expected in document.text


def test_the_compared_target_is_not_the_best_on_these_tests(finished: Path) -> None:
    text = page(finished, "campaign").text
    lead = text[text.index("Attack success falls") : text.index("Overall")]
    assert "79.0\u00a0% on bare, 34.0\u00a0% behind sanitizer@1.0" in lead
    assert "price of 6.7\u00a0%" in lead  # all controls, not one kind of them
    assert "31.0\u00a0%" in lead  # delivered
    assert "sanitizer@4.0" not in lead


def test_judges_show_recall_and_calibration(finished: Path) -> None:
    text = page(finished, "campaign").text
    assert "86.1\u00a0%" in text
    assert "0.0710" in text


def test_large_sizes_are_written_as_people_read_them(store: Store, tmp_path: Path) -> None:
    made.fill(store, made.enlarged())
    file = render(store, "quickstart", tmp_path).with_name("scaling.html")
    text = file.read_text(encoding="utf-8")
    assert "to 1,000,000 wrapper families" in text
    assert "2,000,000" in text
    assert not re.search(r"[0-9]e\+0[0-9]", text.partition("<script")[0])
    assert '"1,000,000"' in text  # the ticks and the ends of the curves


def test_frontier_compares_at_the_fixed_gain(store: Store, tmp_path: Path) -> None:
    steps = made.results()
    for run in steps["train"]:
        for row in run["frontier"]:  # ridge is far ahead, but at a gain chosen afterwards
            ahead = {"ridge": 0.3 * (row["gain"] == 1.5), "sanitizer": 0.2 * (row["gain"] == 1.0)}
            row["semantic"] += ahead.get(row["method"], 0.0)
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    text = page(tmp_path / "report", "frontier").text
    assert "The sanitizer keeps more meaning than every baseline" in text
    assert "removes more unsafe probability than the sanitizer" not in text


def test_claims_never_share_a_figure_with_measurements(finished: Path) -> None:
    document = page(finished, "scaling")
    assert "claimed — metric incompatible" in document.text
    figures = [
        text for attributes, text in document.scripts if attributes.get("class") == "figure-data"
    ]
    for figure in figures:
        assert not {0.453, 0.6, 0.75} & set(numbers_of(json.loads(figure)["data"]))
        assert "69.3" not in list(texts_of(json.loads(figure)))


def test_numbers_name_their_makers(finished: Path) -> None:
    text = page(finished, "scaling").text
    for maker in (
        "a3f1c9d27b60",
        "seeds 0, 1, 2",
        "embedding-logistic@9c1d88e2ab45",
        "commit 1a2b3c4",
    ):
        assert maker in text


@pytest.mark.parametrize(
    ("measure", "ahead", "claim"),
    [
        ("semantic", {"ridge"}, "Ridge keeps more meaning than the sanitizer"),
        ("semantic", {"mlp", "x0"}, "Mlp and x0 keep more meaning than the sanitizer"),
        ("semantic", {*made.BESIDE}, "and 3 other methods keep more meaning than the sanitizer"),
        ("safety", {"mlp"}, "mlp removes more unsafe probability than the sanitizer"),
        ("safety", {"sanitizer"}, "the sanitizer removes more unsafe probability than every"),
    ],
)
def test_frontier_says_plainly_who_wins(
    store: Store, tmp_path: Path, measure: str, ahead: set[str], claim: str
) -> None:
    steps = made.results()
    for run in steps["train"]:
        for row in run["frontier"]:
            level = 0.5 if row["method"] == "sanitizer" else 0.3
            row[measure] = 0.8 if row["method"] in ahead else level + 0.001 * run["seed"]
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    assert claim in page(tmp_path / "report", "frontier").text


def test_methods_that_seeds_do_not_separate_have_no_winner(store: Store, tmp_path: Path) -> None:
    steps = made.results()
    for run in steps["train"]:
        for row in run["frontier"]:
            swings = 0.1 * (run["seed"] - 1) * (row["method"] == "mlp")
            row["semantic"] = 0.5 + swings if row["method"] in {"sanitizer", "mlp"} else 0.3
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    text = page(tmp_path / "report", "frontier").text
    assert "These seeds do not separate the sanitizer from mlp in meaning" in text


def test_a_loss_below_the_taggers_is_listed_first(store: Store, tmp_path: Path) -> None:
    steps = made.results()
    for run in steps["train"]:
        run["baselines"] |= {"x0": 0.01, "x0-x3": 0.9}
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    text = page(tmp_path / "report", "frontier").text
    ranked = text[text.index("Dewrapping: loss on test_both") :]
    places = [ranked.index(f" {name} ") for name in ("x0", "sanitizer's tagger", "mlp", "x0-x3")]
    assert places == sorted(places)


def test_the_final_sanitizer_is_shown_with_what_was_kept(finished: Path) -> None:
    text = page(finished, "frontier").text
    final = text[text.index("The sanitizer that was attacked") :]
    for expected in (
        made.MODEL[:12],
        "0.161",
        "0.927",  # token F1 and AUROC of the kept weights, not of the last ones
        "0.972",
        "11,403,000",
        "21\u00a0min 24\u00a0s",
        "8.60 × 10¹⁴",
        "One seed cannot tell",
        "x0-x3",
    ):
        assert expected in final
    assert "0.906" not in final


def test_a_sanitizer_that_nobody_attacked_is_not_called_attacked(
    store: Store, tmp_path: Path
) -> None:
    steps = made.results()
    steps["sanitizer"][0]["model"] = "e" * 64
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    text = page(tmp_path / "report", "frontier").text
    assert "The final sanitizer" in text
    assert "The sanitizer that was attacked" not in text


def test_final_sanitizers_alone_are_compared_over_their_seeds(store: Store, tmp_path: Path) -> None:
    made.fill(store, {"train": [made.sanitizer(seed) for seed in range(3)]})
    render(store, "quickstart", tmp_path / "report")
    text = page(tmp_path / "report", "frontier").text
    assert "paired over 3 seeds" in text
    assert "models trained on 5,120 pairs" in text
    assert text.count("Every method on test_both") == 1
    assert "The final sanitizer" in text


def texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)


def numbers_of(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(one)


@pytest.mark.parametrize("single_file", [False, True])
def test_hostile_text_stays_text(store: Store, tmp_path: Path, single_file: bool) -> None:
    mark = made.HOSTILE.replace("\x00", "").replace("\ud800", "")
    steps = {step: [made.hostile(one) for one in found] for step, found in made.results().items()}
    made.fill(store, steps, experiment=f"{mark}x", mark=mark)
    render(store, f"{mark}x", tmp_path / "report", single_file=single_file)
    for name in ("index",) if single_file else PAGES:
        document = page(tmp_path / "report", name)
        assert "not as this version writes it" not in document.text
        tags = {tag for tag, _ in document.elements}
        assert not tags & {"img", "iframe"}
        assert not any(key.startswith("on") for _, one in document.elements for key in one)
        links = {one["href"] for tag, one in document.elements if tag == "a"}
        assert not any("javascript" in link for link in links)
        executed = [text for one, text in document.scripts if one.get("type") != "application/json"]
        assert not any("__pwned" in text for text in executed)
        html = (tmp_path / "report" / f"{name}.html").read_text(encoding="utf-8")
        shown = CONTENT.sub("", html)
        assert "&lt;/script&gt;" in shown
        assert "{{ 7*7 }}" in shown
        assert "\x00" not in html
        assert "\u202e" not in html
        assert "⟨U+202E⟩" in shown


def test_hostile_text_in_figures_is_escaped_for_plotly(store: Store, tmp_path: Path) -> None:
    steps = {step: [made.hostile(one) for one in found] for step, found in made.results().items()}
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    document = page(tmp_path / "report", "campaign")
    figures = [
        text for attributes, text in document.scripts if attributes.get("class") == "figure-data"
    ]
    for text in (text for block in figures for text in texts_of(json.loads(block))):
        assert "<" not in text
        assert text.replace("\u00a0", " ").isprintable()


def test_single_file_has_every_chapter_and_plotly_once(store: Store, tmp_path: Path) -> None:
    made.fill(store, made.results())
    render(store, "quickstart", tmp_path / "report")
    index = render(store, "quickstart", tmp_path / "report", single_file=True)
    assert [path.name for path in tmp_path.glob("report/*.html")] == ["index.html"]
    assert index.stat().st_size <= 8_000_000
    document = page(index.parent, "index")
    anchors = {one["id"] for tag, one in document.elements if one.get("class") == "page"}
    assert anchors == set(PAGES)
    assert declared(document) == 20
    assert sum(len(text) > 1_000_000 for _, text in document.scripts) == 1
    ids = [one["id"] for _, one in document.elements if "id" in one]
    assert len(ids) == len(set(ids))


def test_unchanged_report_is_left_alone(store: Store, tmp_path: Path, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    row = store.runs.experiment("quickstart")
    again = {key: row[key] for key in ("file", "members", "state", "owner")}
    store.runs.set_experiment("quickstart", **again)  # a second run that skipped everything
    started = time.process_time()
    render(store, "quickstart", folder)
    assert time.process_time() - started < 0.3
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_lost_page_or_a_new_run_is_written(store: Store, folder: Path) -> None:
    (folder / "cost.html").unlink()
    render(store, "quickstart", folder)
    assert (folder / "cost.html").is_file()
    store.runs.update("run-717569636b73-pairs-0", wall_s=99.0)
    render(store, "quickstart", folder)
    assert "1\u00a0min 39\u00a0s" in page(folder, "index").text


def test_equal_inputs_give_equal_bytes(store: Store, tmp_path: Path, folder: Path) -> None:
    render(store, "quickstart", tmp_path / "other")
    for name in PAGES:
        assert (folder / f"{name}.html").read_bytes() == (
            tmp_path / "other" / f"{name}.html"
        ).read_bytes()


def test_partial_experiment_says_what_is_missing(store: Store, tmp_path: Path) -> None:
    steps = made.results()
    made.fill(store, {"pairs": steps["pairs"], "train": steps["train"][:3]})
    failed = made.make_run(
        "run-f",
        "quickstart",
        "train",
        member="seed=0",
        state="failed",
        error="out of <b>memory</b>",
    )
    store.runs.add(failed)
    store.runs.add(replace(failed, id="run-g", step="tests", member="", state="running", error=""))
    members = store.runs.experiment("quickstart")["members"]
    members = {
        **members,
        "train": [*members["train"], None],
        "tests": [None],
        "laws": [None],
        "attack": [None],
    }
    store.runs.set_experiment(
        "quickstart", file="q.yaml", members=members, state="failed", owner="t"
    )
    index = render(store, "quickstart", tmp_path / "report")
    text = page(index.parent, "index").text
    assert "train · seed=0 failed: out of <b>memory</b>" in text
    assert "…\u00a0running" in text
    assert "laws (1)" in text
    assert "03_scaling_laws has not finished" in page(index.parent, "scaling").text
    assert (
        "Notebook 04_generate_tests and 05_execute_campaign and 06"
        in page(index.parent, "campaign").text
    )
    assert "08_cost_and_roi" in page(index.parent, "cost").text


@pytest.mark.parametrize("kind", sorted(made.results().keys() - {"ablation"}))
def test_each_kind_may_be_missing(store: Store, tmp_path: Path, kind: str) -> None:
    steps = made.results()
    del steps[kind]
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    names = [path.stem for path in (tmp_path / "report").glob("*.html")]
    # nothing more will come, so a chapter without a result is left out
    gone = {"pairs": {"data"}, "assessment": {"risk"}}.get(kind, set())
    assert set(names) == {*PAGES} - gone
    for name in names:
        assert "not as this version writes it" not in page(tmp_path / "report", name).text


def test_malformed_result_spoils_its_page_only(store: Store, tmp_path: Path) -> None:
    steps = made.results()
    del steps["pairs"][0]["sources"]
    made.fill(store, steps)
    render(store, "quickstart", tmp_path / "report")
    assert "KeyError: 'sources'" in page(tmp_path / "report", "data").text
    assert "Every method on test_both" in page(tmp_path / "report", "frontier").text


def test_unknown_experiment_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never ran"):
        render(store, "nothing", tmp_path)


def test_import_is_light() -> None:
    code = "import sys, workbench.report.html; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pandas", "scipy", "torch", "numpy", "plotly", "sklearn"} & set(loaded)
