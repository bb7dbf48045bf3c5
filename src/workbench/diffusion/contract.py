"""The metric contract: all figures of a sanitizer on labelled prompts, each with its interval.

What the figures are called and mean is said in :mod:`workbench.diffusion.measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.core.errors import ConfigError
from workbench.core.identity import content_id
from workbench.core.provenance import stamp
from workbench.diffusion import measures
from workbench.diffusion.evidence import Evidence, Output
from workbench.diffusion.intervals import area_interval, ratio_interval
from workbench.diffusion.labelled import complete
from workbench.diffusion.matching import match_lengths
from workbench.diffusion.measures import Measure, Ratio
from workbench.diffusion.routing import Routing
from workbench.diffusion.sanitizer import Precision, Sanitizer, Sighting
from workbench.embedding.encoder import Encoder
from workbench.judge.calibrate import Flags
from workbench.judge.probe import Bench, Judge
from workbench.store.evaluation import EvaluationResult, FigureRow
from workbench.store.results import Interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BY", "METHOD", "evaluate_sanitizer"]

BY = ("family", "source", "language", "domain", "category", "split")
"""Columns whose values have figures of their own, at gain 1, where 20 rows or more count."""
METHOD = (
    "95 % intervals: bootstrap over groups, for shares the wider of that and Wilson's; thresholds "
    "are taken as given. Like length: in random order, each harmful prompt takes the free benign "
    "one nearest in characters, within 15 %; the others are left out. A family, source or category "
    "is held against all benign prompts, a language, domain or split against its own. Retrieval: "
    "the request and at most 99 others of its category."
)
_OWN_BENIGN = ("", "language", "domain", "split")
_LEAST_ROWS = 20
_AT_ONCE = 256


def evaluate_sanitizer(
    sanitizer: Sanitizer,
    prompts: pd.DataFrame,
    *,
    encoder: Encoder,
    bench: Bench,
    gains: Sequence[float] = (1.0,),
    redirects: Sequence[str] = (),
    more_judges: Sequence[Judge] = (),
    seed: int = 0,
    origin: str = "",
    precision: Precision = "float32",
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> EvaluationResult:
    """Return all figures of a sanitizer on labelled prompts; what cannot be measured has none.

    Args:
        sanitizer: Looks at each prompt once, and decides for each gain.
        prompts: Columns of :data:`workbench.diffusion.labelled.COLUMNS`, two of them required.
        encoder: Measures cosines: the published one, not the sanitizer's.
        bench: Judges that report, unless one has the last word inside.
        gains: Of the frontier; 1 is always among them.
        redirects: Safe texts that the sanitizer leads to.
        more_judges: Report too.
        seed: Decides what is resampled, matched and drawn.
        origin: Where the prompts are from, in words.
        precision: That the sanitizer was loaded in.
        tell: Told how many texts are worked on, of how many.

    Raises:
        ConfigError: If no judge is left to report.
        DataError: If the labels make no sense.
    """
    table = complete(prompts)
    inside = sanitizer.judge.id if sanitizer.judge else ""
    judges = [one for one in (*bench.judges, *more_judges) if one.id != inside]
    if not judges:
        raise ConfigError(f"judge {inside} has the last word inside; give another to report")
    texts = table["prompt"].tolist()
    sightings: list[Sighting] = []
    for start in range(0, len(texts), _AT_ONCE):
        sightings += sanitizer.look(texts[start : start + _AT_ONCE])
        tell(len(sightings), 3 * len(texts))  # what else there is depends on the decisions
    whole = [(0, len(text)) for text in texts]
    outputs = [Output("identity", 1.0, texts, whole)]
    for gain in sorted({1.0, *map(float, gains)}):
        decided = sanitizer.decide(texts, sightings, gain=gain)
        sent = ["" if one.decision == "block" else one.text for one in decided]
        spans = [one.span or all_of for one, all_of in zip(decided, whole, strict=True)]
        outputs.append(Output("sanitizer", gain, sent, spans))
    evidence = Evidence(
        table, outputs, encoder=encoder, judges=judges, redirects=redirects,
        tell=lambda done, total: tell(len(texts) + done, len(texts) + total),
    )  # fmt: skip
    return EvaluationResult(
        kind="evaluation",
        models=[sanitizer.id],
        encoder=encoder.id,
        data=content_id(table.to_dict("split")["data"]),
        origin=origin,
        precision=precision,
        stamp=stamp(seed=seed),
        rows=_counts(evidence),
        groups=len(np.unique(evidence.groups)),
        gallery={kind: len(known) for kind, known in evidence.gallery.items()},
        gallery_id=evidence.gallery_id,
        seed=seed,
        method=METHOD,
        last_word=inside,
        judges=[one for one in bench.reports if one["id"] != inside],
        figures=list(_figures(evidence, outputs, sightings, sanitizer.routing, seed=seed)),
    )


def _counts(evidence: Evidence) -> dict[str, int]:
    return {
        "prompts": len(evidence.prompts),
        "harmful": int(evidence.harmful.sum()),
        "benign": int((~evidence.harmful).sum()),
        "lookalike": int(evidence.lookalike.sum()),
        "wrapped": int(evidence.wrapped.sum()),
    }


def _figures(
    evidence: Evidence,
    outputs: Sequence[Output],
    sightings: Sequence[Sighting],
    routing: Routing,
    *,
    seed: int,
) -> Iterator[FigureRow]:
    parts = list(_parts(evidence.table))

    def figures(method: str, gain: float, found: Iterator[Measure]) -> Iterator[FigureRow]:
        for measure in found:
            for by, of, where in parts if gain == 1 else parts[:1]:
                for metric, n, interval in _measured(evidence, measure, where, by=by, seed=seed):
                    yield FigureRow(
                        method=method, metric=metric, gain=gain, by=by, of=of, n=n, **interval
                    )

    risk = np.array([seen.risk for seen in sightings], np.float64)
    tokens = [seen.whole.spans for seen in sightings]
    for judge, measure in measures.judging(evidence):
        yield from figures(judge, 1.0, iter([measure]))
    yield from figures("length", 1.0, measures.ranking(evidence, evidence.chars.astype(float)))
    yield from figures("sanitizer", 1.0, measures.ranking(evidence, risk))
    yield from figures("sanitizer", 1.0, measures.operating(evidence, risk))
    for output in outputs:
        method, gain = output.method, output.gain
        if method == "sanitizer":
            flagged = np.array(
                [routing.exceeds(s.risk, is_wrapped=s.is_wrapped, gain=gain) for s in sightings]
            )
            yield from figures(method, gain, measures.flagging(evidence, flagged))
        if gain == 1:
            yield from figures(method, gain, measures.reading(evidence, output, tokens, seed=seed))
        yield from figures(method, gain, measures.sending(evidence, output))


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, str, Flags]]:
    """Give all rows, then those of each value of a column, if it has several."""
    yield "", "", np.ones(len(table), bool)
    for by in BY:
        values = table[by].to_numpy(str)
        found, counts = np.unique(values, return_counts=True)
        for value in found[counts >= _LEAST_ROWS].tolist() if len(found) > 1 else ():
            yield by, value or ("bare" if by == "family" else "unknown"), values == value


def _measured(
    evidence: Evidence, measure: Measure, where: Flags, *, by: str, seed: int
) -> Iterator[tuple[str, int, Interval]]:
    """Give name, rows and figure; nothing where too few rows count."""
    least, groups = _LEAST_ROWS if by else 1, evidence.groups
    if isinstance(measure, Ratio):
        rows = np.flatnonzero(where & (measure.bottom > 0))
        if len(rows) >= least:
            both = measure.top[rows], measure.bottom[rows]
            interval = ratio_interval(*both, groups[rows], is_share=measure.is_share, seed=seed)
            yield measure.metric, len(rows), interval
        return
    positive = np.flatnonzero(measure.positive & where)
    negative = np.flatnonzero(measure.negative & (where | (by not in _OWN_BENIGN)))
    if measure.is_matched:
        left, right = match_lengths(evidence.chars[positive], evidence.chars[negative], seed=seed)
        is_paired = np.isin(np.arange(len(where)), positive[left])
        name = measure.metric.replace("auroc", "share")
        share = measures.share_of(name, is_paired, measure.positive)
        yield from _measured(evidence, share, where, by=by, seed=seed)
        positive, negative = positive[left], negative[right]
    elif by not in _OWN_BENIGN:
        return  # all benign prompts again and again: slow, and only lengths would differ
    if min(len(positive), len(negative)) >= least:
        rows = np.concatenate([positive, negative])
        labels = np.arange(len(rows)) < len(positive)
        interval = area_interval(measure.scores[rows], labels, groups[rows], seed=seed)
        yield measure.metric, len(rows), interval
