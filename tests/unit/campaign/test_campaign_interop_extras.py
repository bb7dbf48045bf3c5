"""PyRIT's converters and Inspect's logs, against stand-ins of the same interface."""

from __future__ import annotations

import asyncio
import builtins
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from campaign_fakes import make_set
from workbench.campaign.interop.inspect_logs import SCORER, write_inspect_log
from workbench.campaign.interop.pyrit import pyrit_strategies
from workbench.campaign.strategies import catalog
from workbench.core.errors import ConfigError, DataError
from workbench.store.records import Attempt

SET = make_set(2)
SEEDS: list[int | None] = [None]
"""What PyRIT's own draws were seeded with, in turn."""


class Base:
    SUPPORTED_INPUT_TYPES: ClassVar[tuple[str, ...]] = ("text",)
    SUPPORTED_OUTPUT_TYPES: ClassVar[tuple[str, ...]] = ("text",)

    async def convert_async(self, *, prompt: str, input_type: str = "text") -> SimpleNamespace:
        assert input_type == "text"
        await asyncio.sleep(0)
        return SimpleNamespace(output_text=self.convert(prompt), output_type="text")


class ROT13Converter(Base):
    """Rotates letters.

    By thirteen.
    """

    def convert(self, prompt: str) -> str:
        return prompt[::-1]


class CharSwapConverter(Base):
    def convert(self, prompt: str) -> str:
        return f"{prompt}{random.random()}"


class DigitBijectionConverter(Base):
    def __init__(self, *, seed: int | None = None) -> None:
        self.seed = seed

    def convert(self, prompt: str) -> str:
        return f"{prompt}{self.seed}"


class PersuasionConverter(Base):
    def __init__(self, *, converter_target: object = None) -> None: ...


class SuffixAppendConverter(Base):
    def __init__(self, *, suffix: str) -> None: ...


class QRCodeConverter(Base):
    SUPPORTED_OUTPUT_TYPES = ("image_path",)


class Converters(ModuleType):
    """One of its names needs a package that is not installed, like those of images."""

    def __dir__(self) -> list[str]:
        return [*vars(self), "ImageRotationConverter"]

    def __getattr__(self, name: str) -> object:
        if name == "ImageRotationConverter":
            raise ImportError("no pictures here")
        raise AttributeError(name)


@pytest.fixture
def pyrit(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, common = ModuleType("pyrit"), ModuleType("pyrit.common")
    module, context = Converters("pyrit.converter"), ModuleType("pyrit.common.random_context")
    context.get_configured_random_seed = lambda: SEEDS[-1]
    context.configure_random_seed = lambda *, seed: SEEDS.append(seed)
    parent.__path__ = common.__path__ = []
    for one in (ROT13Converter, CharSwapConverter, DigitBijectionConverter, PersuasionConverter,
                SuffixAppendConverter, QRCodeConverter):  # fmt: skip
        setattr(module, one.__name__, one)
    module.notAConverter = 7
    for one in (parent, common, module, context):
        monkeypatch.setitem(sys.modules, one.__name__, one)


@pytest.mark.usefixtures("pyrit")
def test_converters_without_a_model_become_strategies() -> None:
    found = {one.name: one for one in pyrit_strategies()}
    assert list(found) == ["pyrit-char-swap", "pyrit-digit-bijection", "pyrit-rot13"]
    rot = found["pyrit-rot13"]
    assert (rot.description, rot.kind) == ("Rotates letters.", "encoding")
    assert rot.disguise("abc é", seed=1) == "é cba"


@pytest.mark.usefixtures("pyrit")
@pytest.mark.parametrize("name", ["pyrit-char-swap", "pyrit-digit-bijection"])
def test_equal_seeds_disguise_equally_and_draws_elsewhere_go_on(name: str) -> None:
    (one,) = (one for one in pyrit_strategies() if one.name == name)
    state = random.getstate()
    assert one.disguise("a", seed=1) == one.disguise("a", seed=1) != one.disguise("a", seed=2)
    assert random.getstate() == state
    assert SEEDS[-2:] == [2, None]


@pytest.mark.usefixtures("pyrit")
def test_a_running_event_loop_is_no_hindrance() -> None:
    async def in_a_notebook() -> str:
        (one,) = (one for one in pyrit_strategies() if one.name == "pyrit-rot13")
        return one.disguise("abc", seed=0)

    assert asyncio.run(in_a_notebook()) == "cba"


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture
def fresh_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog as a new process has it; that of other tests stays as it is."""
    for name in ("strategies", "_add_pyrit"):
        monkeypatch.setattr(catalog, name, cache(getattr(catalog, name).__wrapped__))


@pytest.mark.usefixtures("fresh_catalog", "pyrit")
def test_the_catalog_has_them_once_one_is_named() -> None:
    assert not any(name.startswith("pyrit-") for name in catalog.strategies().names())
    chains = catalog.default_chains()
    first, second = catalog.parse_chain("pyrit-rot13+base64")
    assert (first.disguise("abc", seed=1), second.name) == ("cba", "base64")
    assert catalog.chain_kind(["pyrit-char-swap"]) == "encoding"
    assert "pyrit-digit-bijection" in catalog.strategies().names()
    assert catalog.default_chains() == chains
    with pytest.raises(ConfigError, match="unknown strategy 'pyrit-none'"):
        catalog.parse_chain("pyrit-none")


@pytest.mark.usefixtures("fresh_catalog")
def test_without_pyrit_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "pyrit")
    for ask in (pyrit_strategies, partial(catalog.parse_chain, "base64+pyrit-rot13")):
        with pytest.raises(ConfigError, match=r"prompt-safety-workbench\[pyrit\]"):
            ask()


def attempts() -> list[Attempt]:
    first = Attempt(
        execution="e", case_id=SET.cases[0].id, target="shop", sent="hi", received="ho",
        decision="pass", scores={"a": 0.5}, success=True, latency_ms=1500.0, reasons={"a": "why"},
    )  # fmt: skip
    failed = replace(first, case_id=SET.cases[1].id, error="closed", success=False, trial=1)
    return [first, replace(first, trial=1, success=False), failed]


class Fields(SimpleNamespace):
    @classmethod
    def from_content(cls, model: str, content: str, error: str | None) -> Fields:
        return cls(model=model, completion=content, error=error)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Fields, str]]:
    """What the stand-in of Inspect was told to write."""
    logs: list[tuple[Fields, str]] = []
    names = ("EvalLog", "EvalSpec", "EvalDataset", "EvalConfig", "EvalSample", "EvalResults",
             "EvalScore", "EvalMetric", "EvalStats")  # fmt: skip
    parts = {"inspect_ai": {}, "inspect_ai.log": dict.fromkeys(names, Fields),
             "inspect_ai.model": {"ModelOutput": Fields},
             "inspect_ai.scorer": {"Score": Fields}}  # fmt: skip
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["inspect_ai.log"].write_eval_log = lambda log, location: logs.append(
        (log, location)
    )
    sys.modules["inspect_ai"].log = sys.modules["inspect_ai.log"]
    return logs


def test_an_execution_becomes_a_log(written: list[tuple[Fields, str]], tmp_path: Path) -> None:
    write_inspect_log(attempts(), tmp_path / "a.eval", cases=SET)
    ((log, location),) = written
    assert location == str(tmp_path / "a.eval")
    assert (log.eval.model, log.eval.config.epochs, log.eval.dataset.samples) == ("shop", 2, 2)
    (score,) = log.results.scores
    assert score.metrics["mean"].value == 0.5
    assert (log.results.total_samples, log.results.completed_samples) == (3, 2)
    first, _, failed = log.samples
    assert (first.id, first.epoch, first.input) == (SET.cases[0].id, 1, "hi")
    assert (first.scores[SCORER].value, first.scores[SCORER].explanation) == (1.0, "why")
    assert (first.output.completion, first.total_time) == ("ho", 1.5)
    assert (failed.scores, failed.output.error, failed.epoch) == (None, "closed", 2)


@pytest.mark.usefixtures("written")
def test_what_no_log_can_say_is_refused(tmp_path: Path) -> None:
    one = attempts()[0]
    for several, name, message in (
        ([one], "a.txt", "rename it"),
        ([], "a.eval", "0 targets"),
        ([one, replace(one, target="b")], "a.eval", "2 targets"),
        ([replace(one, case_id="f" * 64)], "a.eval", "none of the cases"),
    ):
        with pytest.raises(DataError, match=message):
            write_inspect_log(several, tmp_path / name, cases=SET)


def test_without_inspect_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "inspect_ai")
    with pytest.raises(ConfigError, match=r"prompt-safety-workbench\[inspect\]"):
        write_inspect_log(attempts(), tmp_path / "a.eval", cases=SET)


def test_importing_loads_neither() -> None:
    program = (
        "import sys, workbench.campaign.interop.pyrit, workbench.campaign.interop.inspect_logs;"
        "print({'pyrit', 'inspect_ai', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "set()", done.stderr
