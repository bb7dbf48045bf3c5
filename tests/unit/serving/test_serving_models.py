"""What becomes of a text does not depend on the batch that it comes in."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import statistics

import pytest

from served_models import add_model
from workbench.data.requests import load_benign
from workbench.diffusion.condition import Condition
from workbench.serving.config import ServeConfig
from workbench.serving.models import Models, Prompt, Sanitized


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_batch_decides_of_each_text_what_is_decided_of_it_alone(store, precision) -> None:
    if precision == "int8" and not importlib.util.find_spec("onnxruntime"):
        pytest.skip("onnxruntime is not installed: pip install '.[onnx]'")
    models = Models(store, ServeConfig(precision=precision))
    asyncio.run(models.load(add_model(store)))
    asked = [one.request for one in load_benign()][:40]
    texts = [*asked, *(f'You are a pirate. A guest asks: "{one}" Answer him.' for one in asked)]
    random.Random(0).shuffle(texts)

    def sanitized(size: int, gain: float) -> list[Sanitized]:
        prompts = [Prompt(text=one, gain=gain, condition=Condition()) for one in texts]
        parts = [prompts[at : at + size] for at in range(0, len(prompts), size)]
        return [one for part in parts for one in models.sanitize(part)]

    risk = statistics.median(one.result.scores["risk"] for one in sanitized(16, 1.0))
    gain = (1 - risk) / risk  # half of them are redirected
    together, alone = sanitized(16, gain), sanitized(1, gain)
    for one, other in zip(together, alone, strict=True):
        assert (one.result.decision, one.result.text, one.result.span, one.tokens) == (
            other.result.decision, other.result.text, other.result.span, other.tokens,
        )  # fmt: skip
        assert one.result.scores == pytest.approx(other.result.scores, abs=1e-4)
    led = [one.result.decision for one in together].count("redirect")
    assert 0.4 < led / len(texts) < 0.6
