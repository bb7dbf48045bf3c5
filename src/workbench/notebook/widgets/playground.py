"""The sanitizer playground: what becomes of a prompt, why, and what would at another gain."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from workbench.core.errors import ConfigError, DataError
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel
from workbench.report.tables import number, percent, short
from workbench.store.database import Store

if TYPE_CHECKING:
    from workbench.diffusion.sanitizer import SanitizedPrompt, Sanitizer, Sighting

__all__ = ["Playground", "playground"]

_GAINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
_NEIGHBORS = 5
_MOST_LINES = 1_000
_SCORES = {
    "risk": "probability of harm that decides",
    "harm": "logit of harm, of the whole prompt",
    "harm_core": "logit of harm, of the core alone",
    "wrapped": "logit of a wrapper around it",
    "core": "mean probability of the core's words",
    "unsafe": "of what is sent on, by the judge that may block it",
}


class Playground(Panel):
    """A prompt through a trained sanitizer; nothing of it is stored.

    Args:
        store: Where models are.
        model: Id of one, or the beginning of it; the newest sanitizer if empty.
        prompt: What to begin with.
    """

    title = "Sanitizer playground"

    def __init__(self, store: Store | None = None, *, model: str = "", prompt: str = "") -> None:
        super().__init__(store)
        self._model, self._first = model, prompt
        self._loaded: tuple[str, Sanitizer] | None = None
        self._seen: tuple[str, Sighting, Sanitizer] | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> dict[str, Any]:
        """Return which model it is; the model itself is loaded when it is needed."""
        model = self._chosen()
        if not model:
            words = "There is no trained sanitizer here. Run experiments/quickstart.yaml first."
            return {"blocks": {"none": look.text(words)}, "model": ""}
        loaded = " (loaded)" if self._loaded and self._loaded[0] == model else ""
        return {"blocks": {"model": look.text(f"Sanitizer {short(model)}{loaded}")}, "model": model}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return where a prompt is written, the gain, and what can be done."""
        known = self.store.artifacts.rows("model")
        models = [one["id"] for one in known if one["metadata"].get("kind") == "sanitizer"]
        choices = [("the newest", ""), *((short(one), one) for one in models)]
        wanted = next((one for one in models if self._model and one.startswith(self._model)), "")
        model = ipywidgets.Dropdown(options=choices, value=wanted, description="Model")
        model.observe(lambda change: self._choose(change["new"]), names="value")
        self.gain.observe(lambda _: self.do(self._again), names="value")
        run = self.button("Sanitize", self.run, style="primary")
        file = ipywidgets.HBox([self.file, self.button("Sanitize the file", self.run_file)])
        return [self.prompt, ipywidgets.HBox([model, self.gain, run, self.judges]), file]

    @cached_property
    def prompt(self) -> ipywidgets.Textarea:
        """The prompt."""
        layout = ipywidgets.Layout(width="95%")
        return ipywidgets.Textarea(self._first, description="Prompt", rows=4, layout=layout)

    @cached_property
    def gain(self) -> ipywidgets.FloatSlider:
        """What multiplies the odds of harm: 0 redirects nothing, more than 1 is stricter."""
        return ipywidgets.FloatSlider(
            value=1.0, min=0.0, max=4.0, step=0.05, description="Gain", continuous_update=False
        )

    @cached_property
    def judges(self) -> ipywidgets.Checkbox:
        """Whether the judges of campaigns are asked too; they are trained once."""
        return ipywidgets.Checkbox(description="Ask the judges too", indent=False)

    @cached_property
    def file(self) -> ipywidgets.Text:
        """A file with a prompt per line."""
        return ipywidgets.Text(description="File", placeholder="prompts.txt, one per line")

    def run(self) -> None:
        """Show below what becomes of the prompt, and what would at other gains."""
        prompt = self.prompt.value
        if not prompt.strip():
            raise ConfigError("there is no prompt; write one")
        sanitizer = self._sanitizer()
        (sighting,) = sanitizer.look([prompt])
        self._seen = (prompt, sighting, sanitizer)
        self._again()

    def run_file(self) -> None:
        """Show below what becomes of the prompts of a file, one per line; 1,000 at most."""
        lines = _lines(Path(self.file.value.strip()).expanduser())
        found = self._sanitizer()(lines, gain=self.gain.value)
        decided = Counter(one.decision for one in found)
        rows = [
            (one.decision, percent(one.confidence), one.prompt, _sends(one, rest="as it is"))
            for one in found
        ]
        facts = [(name, number(n), percent(n / len(found))) for name, n in decided.most_common()]
        caption = f"At gain {self.gain.value:g}"
        self.reply({
            "decided": look.facts(facts),
            "prompts": look.table(caption, ("Decision", "Sure", "Prompt", "Sent on"), rows),
        })  # fmt: skip

    def _again(self) -> None:
        """Show the last prompt at the present gain; it is not read again."""
        if self._seen is None:
            return
        prompt, seen, sanitizer = self._seen

        def at(gain: float) -> SanitizedPrompt:
            return sanitizer.decide([prompt], [seen], gain=gain)[0]

        result = at(self.gain.value)
        self.reply({
            "facts": look.facts(_facts(result, seen, sanitizer, gain=self.gain.value)),
            "core": look.marked("The prompt, its core marked", prompt, result.span),
            "sent": look.passages([("What is sent on", [("text", _sends(result))])]),
            "frontier": look.table(
                "Along the frontier",
                ("Gain", "Decision", "Sure", "Sent on"),
                [(number(gain), one.decision, percent(one.confidence), _sends(one))
                 for gain, one in ((gain, at(gain)) for gain in _GAINS)],
            ),
            "scores": look.table(
                "What it rests on", ("Score", "Value", "What it is"),
                [(name, number(value), _SCORES.get(name, "–"))
                 for name, value in result.scores.items()],
            ),
            **self._beside(result, seen, sanitizer),
        })  # fmt: skip

    def _beside(
        self, result: SanitizedPrompt, seen: Sighting, sanitizer: Sanitizer
    ) -> dict[str, look.Block]:
        """Return other candidates, neighbors, and what judges say where they are asked."""
        others = [(one.origin, number(one.score), one.text) for one in result.candidates[1:]]
        near = sanitizer.redirector.gallery.nearest(seen.inner.vector[None], count=_NEIGHBORS)
        rows = [(number(one.score), one.text) for one in near]
        blocks = {
            "others": look.table("Other candidates", ("From", "Score", "Text"), others),
            "near": look.table("Nearest known safe texts", ("Cosine", "Text"), rows),
        }
        if self.judges.value:
            blocks["judges"] = self._judged({"prompt": result.prompt, "sent on": result.text})
        return blocks

    def _judged(self, texts: Mapping[str, str]) -> look.Block:
        from workbench.embedding.vectors import open_encoder
        from workbench.judge.probe import train_bench

        bench = train_bench(self.store, open_encoder(self.store))
        scores = [
            (judge, zip(texts, judge.score(list(texts.values())).tolist(), strict=True))
            for judge in bench.judges
        ]
        rows = [
            (judge.id, name, number(score), "unsafe" if score >= judge.threshold else "safe")
            for judge, found in scores for name, score in found
        ]  # fmt: skip
        return look.table("Judges", ("Judge", "Text", "Probability of harm", "Says"), rows)

    def _choose(self, model: str) -> None:
        self._model, self._seen = model, None
        self.reply({})
        self.update()

    def _chosen(self) -> str:
        known = self.store.artifacts
        if self._model:
            return known.resolve("model", self._model)
        return known.newest("model", said={"kind": "sanitizer"})

    def _sanitizer(self) -> Sanitizer:
        """Return the chosen sanitizer, loaded once."""
        model = self._chosen()
        if not model:
            raise ConfigError("no trained sanitizer here; run experiments/quickstart.yaml first")
        with self._lock:
            if self._loaded is None or self._loaded[0] != model:
                from workbench.diffusion.sanitizer import Sanitizer

                self._loaded = (model, Sanitizer.load(self.store.artifacts.path("model", model)))
            return self._loaded[1]


def playground(store: Store | None = None, *, model: str = "", prompt: str = "") -> Playground:
    """Return the sanitizer playground."""
    return Playground(store, model=model, prompt=prompt)


def _facts(
    result: SanitizedPrompt, seen: Sighting, sanitizer: Sanitizer, *, gain: float
) -> list[tuple[str, str, str]]:
    routing = sanitizer.routing
    limit = routing.wrapped if seen.is_wrapped else routing.bare
    least = _odds(limit) / odds if (odds := _odds(seen.risk)) else math.inf
    turns = f"{least:.2g}" if math.isfinite(least) else "never"
    core = "all of it" if result.span is None else "{}–{}".format(*result.span)
    return [
        ("decision", result.decision, f"{percent(result.confidence)} sure, gain {gain:g}"),
        ("risk", percent(seen.risk), f"redirected from gain {turns} on"),
        ("core", core, "characters of the prompt"),
    ]


def _odds(p: float) -> float:
    return p / (1 - p) if p < 1 else math.inf


def _sends(one: SanitizedPrompt, *, rest: str = "") -> str:
    if one.decision == "block":
        return "(nothing)"
    return rest if rest and one.decision == "pass" else one.text


def _lines(file: Path) -> Sequence[str]:
    try:
        with file.open(encoding="utf-8") as opened:
            lines = [line.rstrip("\n") for line in islice(opened, _MOST_LINES + 1) if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text; convert it first") from None
    if not 1 <= len(lines) <= _MOST_LINES:
        raise DataError(f"{file}: {len(lines):,} or more prompts; give 1 to {_MOST_LINES:,}")
    return lines
