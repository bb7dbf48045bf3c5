from __future__ import annotations

from types import SimpleNamespace

from workbench.diffusion.condition import Condition
from workbench.serving.models import Prompt, Shadow


def test_a_shadow_keeps_who_comes_waiting_for_little() -> None:
    seen: list[list[int]] = []

    def sanitizer(texts, **_):
        seen.append([len(text) for text in texts])
        return [SimpleNamespace(decision="pass") for _ in texts]

    shadow = Shadow(lambda: sanitizer, gain=1.0, share=1.0, tell=lambda *_: None)
    for length in (300, 300, 300, 300, 20_000, 20_000, 5, 5):
        prompt = Prompt(text="x" * length, gain=1.0, condition=Condition())
        shadow.offer(prompt, "pass")
    while shadow.work():
        pass
    assert seen == [[300, 300, 300], [300], [20_000], [20_000], [5, 5]]
