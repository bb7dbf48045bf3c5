"""An exported sanitizer: graphs that equal torch, hashes, and a card that runs and obeys nobody."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from markdown_it import MarkdownIt
from safetensors.numpy import load_file
from torch import nn

from workbench.cli import main
from workbench.core.errors import ConfigError, DataError, StoreError
from workbench.diffusion import export as export_module
from workbench.diffusion.checkpoint import SanitizerParts, read_checkpoint, save_sanitizer
from workbench.diffusion.export import export_sanitizer
from workbench.diffusion.graphs import heads_graph, redirect_graph
from workbench.diffusion.layers import published_names
from workbench.diffusion.model_card import model_card
from workbench.diffusion.prior import Prior, PriorConfig
from workbench.diffusion.redirect import Gallery, Redirector, bare_prompt
from workbench.diffusion.routing import Routing
from workbench.diffusion.sanitizer import Sanitizer
from workbench.diffusion.tagger import Heads, Tagger, TaggerConfig
from workbench.embedding.bert import Bert
from workbench.embedding.encoder import load_encoder, minilm_folder
from workbench.embedding.int8 import Int8Bert, encoder_graph
from workbench.embedding.windows import merge

SAFE = ("How do smoke detectors work?", "How do locks keep a home safe?", "Who wrote Emma?")
LONG = "The weather in the valley was calm that day and people went about their work. " * 30
TEXTS = ["How do I bake bread?", "", "naïve café — 你好 🙂", LONG]
PIECES = [[101, 102], [101, 2129, 2079, 1045, 102], [101, *range(2000, 2254), 102]]
VERSION = "87022c42" * 8
HOSTILE = (
    "x | y <script>alert(1)</script> [z](javascript:1) `q` *r* https://evil.example\n\n# Obeyed"
)
PROMPT = '"How do I bake bread?"'
ROUTING = Routing(
    weights=(0, 0, 0, 9),
    bare=0.7748,
    wrapped=0.7207,
    false_positive_rate={"bare": 0.019, "wrapped": 0.079},
    recall={"bare": 0.5},
    texts=2509,
)


@pytest.fixture(scope="module", autouse=True)
def onnx():
    for library in ("onnxruntime", "onnx"):
        if importlib.util.find_spec(library) is None:
            if "onnxruntime" in os.environ.get("WORKBENCH_REQUIRE", "").split(","):
                pytest.fail(f"{library} is not installed")
            pytest.skip(f"{library} is not installed: pip install '.[onnx]'")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder))
        yield folder


def shaken(module: nn.Module, *, by: float = 0.05):
    """Return a module that no part of is as it was before training."""
    torch.manual_seed(0)
    with torch.no_grad():
        for one in module.parameters():
            one.add_(torch.randn_like(one) * by)
    return module.eval()


def prior_of(process: str, network: str = "mlp") -> Prior:
    config = PriorConfig(network=network, process=process, hidden=16, latent_scale=1.5)
    return shaken(Prior(config))


def save(
    folder: Path,
    process: str = "",
    *,
    about: dict | None = None,
    routing: Routing = ROUTING,
    trained: dict | None = None,
) -> Path:
    tagger = shaken(Tagger(TaggerConfig(tuned_layers=1, hidden=8)), by=0.02)
    with torch.no_grad():
        tagger.heads.detect[-1].bias[1] = -9  # nothing wears a wrapper
    gallery = Gallery(texts=SAFE, vectors=load_encoder().encode(SAFE))
    redirector = Redirector(prior_of(process) if process else None, gallery=gallery, candidates=3)
    told = {"pair_set": VERSION, "phase": {"training": {"seed": 41}, "prior": {"seed": 7}}}
    save_sanitizer(
        SanitizerParts(tagger, redirector, routing, about or told, trained or {}), folder
    )
    return folder


@pytest.fixture(scope="module")
def model(home) -> Path:
    return save(home / "model", "hypotheses")


@pytest.fixture(scope="module")
def folder(home, model) -> Path:
    export_sanitizer(model, home / "exported")
    return home / "exported"


def run(graph: Path | bytes, **given) -> list[np.ndarray]:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(graph, options).run(None, given)


@pytest.mark.parametrize("is_tuned", [True, False])
def test_the_float32_encoder_gives_the_states_of_torch(folder, model, is_tuned):
    published = minilm_folder()
    tuned = read_checkpoint(model).encoder if is_tuned else {}
    weights = published / "model.safetensors"
    graph = folder / "encoder.float32.onnx"
    if not is_tuned:
        graph = encoder_graph(weights, tuned={}, precision="float32")
    untuned = dict(Bert(published).states(PIECES))
    for number, states in Bert(published, tuned=tuned).states(PIECES):
        (found,) = run(graph, ids=np.array([PIECES[number]]))
        assert found.shape == (1, len(PIECES[number]), 384)
        np.testing.assert_allclose(found[0], states, atol=1e-4)
        assert (np.abs(found[0] - untuned[number]).max() > 0.01) == is_tuned


def test_the_int8_encoder_is_the_workbench_s_own_to_the_last_bit(folder, model, tmp_path):
    tuned = read_checkpoint(model).encoder
    assert tuned.keys() == published_names(Tagger(TaggerConfig(tuned_layers=1)).layers).keys()
    own = Int8Bert(minilm_folder() / "model.safetensors", tmp_path / "own.onnx", tuned=tuned)
    for number, states in own.states(PIECES):
        (found,) = run(folder / "encoder.int8.onnx", ids=np.array([PIECES[number]]))
        np.testing.assert_array_equal(found[0], states)


def test_heads_say_of_each_text_alone_what_torch_says_of_all_at_once():
    import onnx

    heads = shaken(Heads(8, dropout=0.5), by=0.2)
    graph = heads_graph(heads)
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    lengths = [2, 3, 57, 300]
    states = [3 * torch.randn(length, 384) for length in lengths]
    owners = torch.repeat_interleave(torch.tensor(lengths))
    with torch.no_grad():
        tags = heads(torch.cat(states), owners, texts=len(lengths))
    payloads = torch.split(tags.payload, lengths)
    wanted = zip(payloads, tags.harm, tags.wrapped, tags.vectors, strict=True)
    for rows, outputs in zip(states, wanted, strict=True):
        found = run(graph, states=rows.numpy())
        for one, other in zip(found, outputs, strict=True):
            assert one.shape == tuple(other.shape)
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert tags.harm.std() > 0.01


@pytest.mark.parametrize("network", ["mlp", "gate", "attention"])
@pytest.mark.parametrize(("process", "count"), [("regression", 1), ("hypotheses", 5)])
def test_redirects_are_those_of_the_prior(network, process, count):
    import onnx

    prior = prior_of(process, network)
    graph = redirect_graph(prior, candidates=5)
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    vectors = load_encoder().encode(SAFE)
    wanted = prior.sample(bare_prompt(vectors), candidates=count).numpy()
    for vector, candidates in zip(vectors, wanted, strict=True):
        (found,) = run(graph, vector=vector[None])
        assert found.shape == (1, count, 384)
        np.testing.assert_allclose(found[0], candidates, atol=1e-5)
    assert np.abs(wanted[:, 0] - vectors).max() > 0.01


def test_encoder_and_heads_together_read_texts_as_the_sanitizer_does(folder, model):
    reader = Sanitizer.load(model).reader
    windows = list(reader.encoder.windows(TEXTS))
    pieces, owners = reader.encoder._pieces(
        reader.encoder._tokenizer.encode_batch(TEXTS, add_special_tokens=False)
    )
    assert len(windows[-1]) > 1
    for number, tags in enumerate(reader(TEXTS)):
        own = [piece for piece, owner in zip(pieces, owners, strict=True) if owner == number]
        states = [run(folder / "encoder.float32.onnx", ids=np.array([one]))[0][0] for one in own]
        payload, *rest = run(folder / "heads.onnx", states=np.concatenate(states))
        edges = np.cumsum([len(one) for one in own])[:-1]
        merged = merge([part[1:-1] for part in np.split(payload, edges)])
        np.testing.assert_allclose(merged, tags.payload, atol=1e-4)
        for found, wanted in zip(rest, (tags.harm, tags.wrapped, tags.vector), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_every_file_is_in_the_sums_and_none_is_a_pickle(folder, model):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: sha for sha, name in (line.split("  ") for line in lines)}
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    del files["SHA256SUMS"]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == sums
    assert {Path(name).suffix for name in files} == {".onnx", ".safetensors", ".json", ".md"}
    assert not any(data.startswith((b"\x80", b"PK")) for data in files.values())
    checkpoint = read_checkpoint(model)
    gallery = checkpoint.redirector.gallery
    np.testing.assert_array_equal(
        load_file(folder / "gallery.safetensors")["vectors"], gallery.vectors
    )
    assert json.loads(files["gallery.json"]) == list(SAFE)
    assert Routing.from_json(json.loads(files["routing.json"])) == checkpoint.routing
    assert files["tokenizer.json"] == (minilm_folder() / "tokenizer.json").read_bytes()


def test_the_same_sanitizer_gives_the_same_files(folder, model, tmp_path):
    again = export_sanitizer(model, tmp_path / "again", precisions=["int8"])
    assert "encoder.float32.onnx" not in again.files
    first = hashlib.sha256((folder / "README.md").read_bytes()).hexdigest()
    assert again.files["README.md"] != first  # it lists one file less
    for name in again.files.keys() - {"README.md"}:
        assert (folder / name).read_bytes() == (again.folder / name).read_bytes()


def code_of(folder: Path) -> str:
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def printed(folder: Path, prompt: str) -> str:
    code = code_of(folder)
    assert code.count(PROMPT) == 1
    alone = "import sys; sys.modules['torch'] = sys.modules['workbench'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", alone + code.replace(PROMPT, repr(prompt))],
        cwd=folder, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize("prompt", [TEXTS[0], LONG])
def test_the_code_on_the_card_redirects_as_the_sanitizer_does(folder, model, prompt):
    (wanted,) = Sanitizer.load(model)([prompt])
    assert wanted.decision == "redirect"
    assert printed(folder, prompt) == wanted.text


@pytest.mark.parametrize(("process", "limit"), [("x0", 0.5), ("", 1.0)])
def test_the_code_on_the_card_runs_without_a_graph_of_the_prior(tmp_path, process, limit):
    routing = Routing(
        weights=(0, 0, 0, 9), bare=limit, wrapped=limit, false_positive_rate={}, recall={}, texts=9
    )
    model = save(tmp_path / "model", process, routing=routing)
    made = export_sanitizer(model, tmp_path / "out", precisions=["int8"])
    assert "redirect.onnx" not in made.files
    assert ("x0, not exported: it draws noise" in made.redirects) == (process == "x0")
    assert made.redirects in (made.folder / "README.md").read_text().replace("\\", "")
    sanitizer = Sanitizer.load(model, precision="int8")
    nearest = sanitizer.redirector.gallery.nearest(sanitizer.reader(TEXTS[:1])[0].vector[None])
    assert printed(made.folder, TEXTS[0]) == (nearest[0].text if limit < 1 else TEXTS[0])


def test_the_card_names_data_seeds_thresholds_and_hashes(folder, model):
    card = (folder / "README.md").read_text()
    assert f"| training data | pair set {VERSION} |" in card
    assert "| seeds | 41, 7 |" in card
    assert "| bare | 0.7748 | 0.019 | 0.500 |" in card
    assert "| wrapped | 0.7207 | 0.079 | not recorded |" in card
    assert "2,509 validation texts" in card
    assert read_checkpoint(model).config["id"] in card
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        sha, _, name = line.partition("  ")
        assert (f"| `{name}` |" in card and sha in card) == (name != "README.md")
    assert "Nothing was, beyond the rates above" in card


def interval(value: float) -> dict:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def evaluation_of(model: Path) -> dict:
    whole = {"method": "sanitizer", "gain": 1, "by": "", "of": "", "n": 1234}
    judge = {
        "id": HOSTILE, "auroc_benign": interval(0.9), "auroc_lookalike": interval(0.8),
        "false_positive_rate": 0.05, "lookalike_flag_rate": 0.2, "recall": 0.7,
        "calibration_error": 0.031,
    }  # fmt: skip
    return {
        "models": [read_checkpoint(model).config["id"]],
        "rows": {"prompts": 48},
        "groups": 12,
        "data": "ab12",
        "origin": "attacks.csv",
        "precision": "int8",
        "last_word": "",
        "encoder": "words",
        "figures": [
            {**whole, "metric": "keep/bare", **interval(0.625)},
            {**whole, "metric": "keep/bare", **interval(0.111), "gain": 2},
            {**whole, "metric": "keep/bare", **interval(0.222), "by": "family"},
        ],
        "judges": [judge],
    }


def test_figures_that_a_judge_inside_has_shaped_are_refused(model) -> None:
    with pytest.raises(DataError, match="judge 'probe' had the last word, which is not exported"):
        card_of(model, evaluation_of(model) | {"last_word": "probe"})


def test_the_card_says_what_training_took_and_claims_no_peak_of_a_cpu(tmp_path):
    took = {
        "steps": 1_500, "train_s": 94.2, "samples_per_s": 815.3, "flops": 8.6e14, "processes": 2,
        "hardware": HOSTILE, "utilization": None,
    }  # fmt: skip
    for share, said in ((None, "no share of a peak is claimed"), (0.312, "31\\.2% of the GPUs")):
        place = save(tmp_path / str(share), trained=took | {"utilization": share})
        card = card_of(place)
        assert "1,500 steps in 94 s, 2 × " in card
        assert "815 samples" in card
        assert "8\\.6e\\+14 FLOP counted" in card
        assert said in card
        assert "<script" not in shown(card)
    assert "| training | not recorded |" in card_of(save(tmp_path / "old"))


def card_of(model: Path, evaluation: dict | None = None) -> str:
    return model_card(
        read_checkpoint(model), encoder="e", redirects="", files={}, sums={}, evaluation=evaluation
    )


def shown(card: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(card)


def test_text_of_others_is_no_markup_on_the_card(model, tmp_path):
    about = {
        "pair_set": HOSTILE,
        "phase": {"seed": HOSTILE, "note": "~~~\n# Obeyed\n```\n</code><script>"},
    }
    hostile = save(tmp_path / "model", about=about)
    card = card_of(hostile, evaluation_of(hostile))
    html, harmless = shown(card), evaluation_of(model)
    harmless["judges"][0]["id"] = "probe"
    plain = shown(card_of(model, harmless))
    assert html.count("alert(1)") == 5  # data, seed, judge; both again as recorded
    for tag in ("<script", "<a ", "<em", "<code"):
        assert html.count(tag) == plain.count(tag)
    for tag in ("<h1", "<h2", "<tr", "<td", "<pre"):
        assert html.count(tag) == plain.count(tag) > 0
    assert "https://evil" not in card.split("~~~json")[0]  # some viewers link addresses
    assert json.loads(card.split("~~~json\n")[1].split("\n~~~")[0]) == about


def test_the_card_shows_what_was_measured_and_the_error_of_the_judges(model):
    card = card_of(model, evaluation_of(model))
    assert "On 48 prompts in 12 groups" in card
    assert "0.625 (0.525–0.725) | 1,234 |" in card
    assert "0.111" not in card
    assert "0.222" not in card
    assert "0.900 (0.800–1.000) | 0.800 (0.700–0.900) | 0.050 | 0.200 | 0.700 | 0.031 |" in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["another"]}, "is of .*another"),
        ({"judges": [{}]}, "lacks something"),
        ({"figures": 3}, "lacks something"),
        ({"groups": "many"}, "lacks something"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(model, change, message):
    with pytest.raises(DataError, match=message):
        card_of(model, evaluation_of(model) | change)


def test_a_changed_sanitizer_is_refused(tmp_path):
    model = save(tmp_path / "model")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match="changed after it was written"):
        export_sanitizer(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_left_alone(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ConfigError, match="is there already; name a new folder"):
            export_sanitizer(model, taken)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("precisions", [[], ["float16"], ["int8", "float16"]])
def test_an_unknown_precision_is_refused(model, tmp_path, precisions):
    with pytest.raises(ConfigError, match="choose from float32, int8"):
        export_sanitizer(model, tmp_path / "out", precisions=precisions)


def test_the_absent_extra_is_named(monkeypatch, model, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"needs onnx; .*prompt-safety-workbench\[onnx\]"):
        export_sanitizer(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(monkeypatch, model, tmp_path):
    write = export_module.write_atomic

    def until_full(path: Path, data: bytes) -> None:
        if path.name == "routing.json":
            raise StoreError("the disk is full")
        write(path, data)

    monkeypatch.setattr(export_module, "write_atomic", until_full)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="full"):
        export_sanitizer(model, tmp_path / "out", precisions=["int8"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_writes_the_folder_and_prints_the_hashes(model, tmp_path):
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps(evaluation_of(model)))
    arguments = ["export", str(model), "--out", str(tmp_path / "out"), "--precision", "int8"]
    done = CliRunner().invoke(main, [*arguments, "--evaluation", str(figures), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    for name, one in said["files"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert one == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert "encoder.int8.onnx" in said["files"]
    assert "encoder.float32.onnx" not in said["files"]
    assert "0.625" in (tmp_path / "out" / "README.md").read_text()
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_the_command_lists_files_for_people(model, tmp_path):
    done = CliRunner().invoke(
        main, ["export", str(model), "--out", str(tmp_path / "out"), "--precision", "int8"]
    )
    assert done.exit_code == 0, done.output
    for name in ("hypotheses: redirect.onnx", "heads.onnx", "README.md"):
        assert name in done.stdout
