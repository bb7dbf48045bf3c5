"""A sanitizer on disk does the same, and nothing but what was saved is loaded."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id
from workbench.diffusion.checkpoint import (
    SanitizerParts,
    load_sanitizer,
    reader_of,
    sanitizer_id,
    save_sanitizer,
)
from workbench.diffusion.prior import Prior, PriorConfig
from workbench.diffusion.redirect import Gallery, Redirector
from workbench.diffusion.routing import Routing
from workbench.diffusion.sanitizer import Sanitizer
from workbench.diffusion.tagger import Tagger, TaggerConfig

PROMPTS = ["how to bake bread", 'Be Bob: "how to bake bread" at once', "", "tell me \ud83d", "عربي"]
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@pytest.fixture(scope="module")
def parts() -> SanitizerParts:
    torch.manual_seed(0)
    tagger = Tagger(TaggerConfig(hidden=8, tuned_layers=1)).eval()
    with torch.no_grad():
        for weights in tagger.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.01)
    prior = Prior(PriorConfig(network="mlp", process="x0", hidden=8, levels=20)).eval()
    rows = np.random.default_rng(0).normal(size=(4, 384))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    gallery = Gallery(texts=tuple("abcd"), vectors=rows.astype(np.float32))
    routing = Routing(
        weights=(1.0, 1.0, 0.1, 0.0),
        bare=0.5,
        wrapped=0.5,
        false_positive_rate={"bare": 0.0},
        recall={"bare": 1.0},
        texts=1,
    )
    redirector = Redirector(prior, gallery=gallery, candidates=3)
    return SanitizerParts(tagger, redirector, routing, {"seed": 0})


@pytest.fixture
def saved(parts: SanitizerParts, tmp_path: Path) -> Path:
    save_sanitizer(parts, tmp_path / "model")
    return tmp_path / "model"


def test_saved_and_loaded_it_does_the_same(parts, saved, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle is being read")

    for module in (pickle, torch):
        monkeypatch.setattr(module, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    loaded = Sanitizer.load(saved)
    assert sorted(file.name for file in saved.iterdir()) == [CONFIG, WEIGHTS]
    assert loaded.id == sanitizer_id(parts) == json.loads((saved / CONFIG).read_text())["id"]
    original = Sanitizer(
        reader_of(parts.tagger), routing=parts.routing, redirector=parts.redirector
    )
    for gain in (0.0, 1.0, 1e9):
        assert loaded(PROMPTS, gain=gain) == original(PROMPTS, gain=gain)
    decisions = {one.decision for gain in (0.0, 1e9) for one in loaded(PROMPTS, gain=gain)}
    assert {"pass", "redirect"} <= decisions


def test_the_same_parts_have_the_same_id_and_bytes(parts, saved, tmp_path) -> None:
    save_sanitizer(parts, tmp_path / "again")
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_whatever_decides_is_part_of_the_id(parts: SanitizerParts) -> None:
    gallery, prior = parts.redirector.gallery, parts.redirector.prior
    others = [
        parts._replace(tagger=Tagger(parts.tagger.config)),
        parts._replace(routing=replace(parts.routing, bare=0.6)),
        parts._replace(about={"seed": 1}),
        parts._replace(redirector=Redirector(None, gallery=gallery, candidates=3)),
        parts._replace(redirector=Redirector(prior, gallery=gallery, candidates=4)),
        parts._replace(
            redirector=Redirector(
                prior, gallery=replace(gallery, texts=tuple("abce")), candidates=3
            )
        ),
    ]
    assert len({sanitizer_id(parts), *map(sanitizer_id, others)}) == 1 + len(others)


def test_what_training_took_is_kept_and_is_no_part_of_the_id(parts, tmp_path) -> None:
    slower = parts._replace(trained={"train_s": 9.0, "hardware": "cpu"})
    assert sanitizer_id(slower) == sanitizer_id(parts)
    save_sanitizer(slower, tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["trained"]["train_s"] == 9.0
    config["trained"]["train_s"] = 0.1
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match="changed after it was written"):
        Sanitizer.load(tmp_path)


def test_without_tuned_layers_and_prior_there_is_less_to_keep(parts, tmp_path) -> None:
    tagger = Tagger(TaggerConfig(hidden=8, tuned_layers=0))
    redirector = Redirector(None, gallery=parts.redirector.gallery)
    few = parts._replace(tagger=tagger, redirector=redirector)
    save_sanitizer(few, tmp_path)
    loaded = load_sanitizer(tmp_path)
    assert loaded.redirector.prior is None
    assert loaded.reader.encoder.id == reader_of(tagger).encoder.id
    assert loaded.id == sanitizer_id(few)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    path.write_text(json.dumps({"format": 1, "id": "x"}))


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00 nothing")


def a_list(path: Path) -> None:
    path.write_text("[1, 2]")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (WEIGHTS, flip, "model.safetensors was changed"),
        (WEIGHTS, cut, "model.safetensors was changed"),
        (WEIGHTS, Path.unlink, "No such file"),
        (CONFIG, Path.unlink, "No such file"),
        (CONFIG, cut, "line 1|Expecting|Unterminated|delimiter"),
        (CONFIG, garbage, "codec"),
        (CONFIG, a_list, "indices must be integers"),
        (CONFIG, foreign, "format 1, not 2"),
    ],
)
def test_a_damaged_missing_or_foreign_file_is_refused(
    saved: Path, name: str, damage: Callable[[Path], None], said: str
) -> None:
    damage(saved / name)
    with pytest.raises(DataError, match=said) as refused:
        Sanitizer.load(saved)
    assert str(saved) in str(refused.value)
    assert "train it again" in str(refused.value)


def test_any_changed_field_of_the_config_is_refused(saved: Path) -> None:
    good = json.loads((saved / CONFIG).read_text())
    for name in good:
        changed = good | {name: "another"}
        (saved / CONFIG).write_text(json.dumps(changed))
        with pytest.raises(DataError, match="not a usable sanitizer"):
            Sanitizer.load(saved)
        (saved / CONFIG).write_text(json.dumps({k: v for k, v in good.items() if k != name}))
        with pytest.raises(DataError, match="not a usable sanitizer"):
            Sanitizer.load(saved)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "minilm@0000"}, "it stands on encoder minilm@0000"),
        ({"tagger": {"hidden": 9}}, "state_dict"),
        ({"tagger": {"hidn": 8}}, "hidn"),
        ({"routing": {}}, ""),
        ({"gallery": []}, "0 texts, 4 vectors"),
        ({"prior": {"hidden": 7}}, "hidden is 7"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused_though_its_id_is_right(
    saved: Path, changes: dict[str, object], said: str
) -> None:
    config = json.loads((saved / CONFIG).read_text()) | changes
    del config["id"]
    (saved / CONFIG).write_text(json.dumps(config | {"id": content_id(config)}))
    with pytest.raises(DataError, match=f"not a usable sanitizer.*{said}"):
        Sanitizer.load(saved)


def test_weights_that_are_no_numbers_are_refused_though_all_hashes_are_right(saved: Path) -> None:
    tensors = load_file(saved / WEIGHTS)
    tensors["heads.payload.bias"][0] = float("nan")
    save_file(tensors, saved / WEIGHTS)
    config = json.loads((saved / CONFIG).read_text())
    config["weights"] = hashlib.sha256((saved / WEIGHTS).read_bytes()).hexdigest()
    del config["id"]
    (saved / CONFIG).write_text(json.dumps(config | {"id": content_id(config)}))
    with pytest.raises(DataError, match="holds NaN or infinity"):
        Sanitizer.load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved(parts, tmp_path, value: float) -> None:
    tagger = Tagger(TaggerConfig(hidden=8, tuned_layers=0))
    with torch.no_grad():
        tagger.heads.payload.bias[0] = value
    with pytest.raises(DataError, match=r"heads\.payload\.bias holds NaN or infinity"):
        save_sanitizer(parts._replace(tagger=tagger), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_precision_that_is_none_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="precision is 'int4'; choose float32 or int8"):
        Sanitizer.load(saved, precision="int4")
