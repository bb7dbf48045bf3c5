"""How well scores rank vulnerabilities that are found to be exploited later, beside other scores.

One dated cut of public records, for development only: the product's factors were chosen on it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from measure import ROOT, publish
from workbench.risk.decide import decide
from workbench.risk.score import Floats, Signals, signals_of, threat

DATA: Final = ROOT.parent / "shared" / "data" / "risk" / "eval_prioritisation.csv.gz"
LABELS: Final = ("later_10mo", "later_22mo")
LEAST_AUC, LEAST_HITS = 0.87, 11
_CUTS: Final = (100, 1000)
_RESAMPLES: Final = 2000
_SEED: Final = 20241027
_OURS: Final = "ours: P of threat()"
_NO_CVSS: Final = 7.5
_GRYPE_SEVERITIES: Final = np.array([0.3, 0.5, 0.75, 0.9])
"""Low, medium, high, critical."""
_GRYPE_UNKNOWN: Final = 0.5

Columns = Mapping[str, npt.NDArray[np.str_]]


def main() -> None:
    """Rank, publish, and fail where the product is below its targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="CSV of the cut, gzipped")
    columns = _read(parser.parse_args().data)
    scores = _scores(columns)
    rows = [row for label in LABELS for row in _rows(scores, columns[label] == "1", label)]
    publish("risk_ranking", rows)
    ours, epss = (_find(rows, LABELS[0], name) for name in (_OURS, "EPSS"))
    _explain(rows, ours, epss)
    if ours["auc"] < LEAST_AUC or ours["hits_1000"] < LEAST_HITS:
        raise SystemExit(f"below target: AUC {LEAST_AUC}, {LEAST_HITS} hits in the first 1,000")


def _read(path: Path) -> Columns:
    """Return the columns of vulnerabilities that were not in KEV at the time of the cut."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; give the cut of public records with --data")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kev_at_t0"] == "0"]
    return {name: np.array([row[name].strip().lower() for row in rows]) for name in rows[0]}


def _scores(columns: Columns) -> dict[str, Floats]:
    """Return how high each method ranks each vulnerability, with what was known at the cut."""
    signals = _signals(columns)
    epss, cvss = signals.epss, np.where(np.isnan(signals.cvss), _NO_CVSS, signals.cvss)
    ours = threat(signals)
    return {
        _OURS: ours.p,
        "ours: likelihood 1 to 5": ours.likelihood_known.astype(np.float64),
        "EPSS": epss,
        "CVSS": cvss,
        "EPSS × CVSS": epss * cvss,
        "Grype's risk": _grype(signals),
        "original 5×5": _original(signals.cvss),
        "BOD 26-04": _directive(signals),
    }


def _signals(columns: Columns) -> Signals:
    cvss = np.where(columns["cvss3_score"] != "", columns["cvss3_score"], columns["cvss4_score"])
    texts = {
        name: pa.array(columns[f"ssvc_{name}"], mask=columns[f"ssvc_{name}"] == "")
        for name in ("exploitation", "automatable", "technical_impact")
    }
    numbers = {"epss": columns["epss_20241027"], "cvss": cvss}
    return signals_of(
        pa.table(
            {
                **{
                    name: [float(one) if one else None for one in numbers[name]] for name in numbers
                },
                "kev": pa.array(np.zeros(len(cvss), dtype=bool)),
                **texts,
            }
        )
    )


def _grype(signals: Signals) -> Floats:
    """Return EPSS × the mean of severity and CVSS; its factor for KEV applies to none of these.

    Source:
        Grype (Anchore), risk = threat × average severity × KEV modifier; severities low 3,
        medium 5, high 7.5, critical 9 of 10, unknown 5.
    """
    severity = _GRYPE_SEVERITIES[np.digitize(np.nan_to_num(signals.cvss), (4.0, 7.0, 9.0))]
    mean = np.where(np.isnan(signals.cvss), _GRYPE_UNKNOWN, (severity + signals.cvss / 10) / 2)
    return signals.epss * mean


def _original(cvss: Floats) -> Floats:
    """Return the 5×5 of the system that the source guide tunes, as it runs.

    Likelihood is the rounded mean of a tier of CVSS, exploitation (1 outside KEV without
    detections) and three dimensions fixed at 3; impact is fixed at 3.
    """
    tier = np.where(np.isnan(cvss), 3, 1 + np.digitize(np.nan_to_num(cvss), (0.1, 4.0, 7.0, 9.0)))
    return 3.0 * np.round((tier + 1 + 3 * 3) / 5)


def _directive(signals: Signals) -> Floats:
    same = np.ones(len(signals.kev), dtype=np.int8)
    found = decide(
        "bod-26-04",
        kev=signals.kev,
        exploitation=signals.exploitation,
        automatable=signals.automatable,
        technical_impact=signals.technical_impact,
        exposure=2 * same,
        criticality=3 * same,
    )
    return found.codes_known.astype(np.float64)


def _rows(
    scores: Mapping[str, Floats], later: npt.NDArray[np.bool_], label: str
) -> list[dict[str, Any]]:
    """Return a row per method: measures, and what they are over those of EPSS."""
    drawn = _resampled(scores, later)
    rows = []
    for name, values in drawn.items():
        row: dict[str, Any] = {"label": label, "method": name}
        over = values - drawn["EPSS"]
        for at, measure in enumerate(("auc", *(f"hits_{cut}" for cut in _CUTS))):
            row |= _told(measure, values[:, at])
        for at, measure in ((0, "auc_over_epss"), (2, "hits_1000_over_epss")):
            row |= _told(measure, over[:, at])
        row |= _told("ours_auc_over_this", drawn[_OURS][:, 0] - values[:, 0])
        rows.append(row | {"positives": int(later.sum()), "of": len(later)})
    return rows


def _told(name: str, values: Floats) -> dict[str, float]:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _resampled(scores: Mapping[str, Floats], later: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    """Return ``(1 + resamples, 3)`` measures per method: of all, then of each resample.

    Positives and negatives are drawn apart, and the same for every method, so that differences
    are paired.
    """
    generator = np.random.default_rng(_SEED)
    levels = {}
    for name, values in scores.items():
        distinct, inverse = np.unique(-values, return_inverse=True)
        levels[name] = (inverse[later], inverse[~later], len(distinct))
    found = {name: np.empty((1 + _RESAMPLES, 1 + len(_CUTS))) for name in scores}
    positives, negatives = int(later.sum()), int((~later).sum())
    for turn in range(1 + _RESAMPLES):
        some = generator.integers(0, positives, positives) if turn else slice(None)
        others = generator.integers(0, negatives, negatives) if turn else slice(None)
        for name, (of_positives, of_negatives, count) in levels.items():
            found[name][turn] = _measures(
                np.bincount(of_positives[some], minlength=count),
                np.bincount(of_negatives[others], minlength=count),
            )
    return found


def _measures(good: npt.NDArray[np.intp], bad: npt.NDArray[np.intp]) -> list[float]:
    """Return the area under the ROC curve and the hits of each cut.

    Args:
        good: Positives per level of the score, highest first.
        bad: Negatives likewise. Ties count half for the area, and by expectation at a cut.
    """
    below = bad.sum() - bad.cumsum() + bad / 2
    both = good + bad
    before = both.cumsum() - both
    area = float((good * below).sum() / (good.sum() * bad.sum()))
    shares = (np.clip((cut - before) / np.maximum(both, 1), 0, 1) for cut in _CUTS)
    return [area, *(float((good * share).sum()) for share in shares)]


def _find(rows: list[dict[str, Any]], label: str, method: str) -> dict[str, Any]:
    return next(row for row in rows if (row["label"], row["method"]) == (label, method))


def _explain(rows: list[dict[str, Any]], ours: dict[str, Any], epss: dict[str, Any]) -> None:
    """Print what these figures allow to say."""

    def beaten(label: str, *, shown: bool) -> str:
        names = [
            row["method"]
            for row in rows
            if row["label"] == label and (row["ours_auc_over_this_low"] > 0) is shown
        ]
        return ", ".join(name for name in names if not name.startswith("ours")) or "none"

    def difference(label: str, what: str) -> str:
        row = _find(rows, label, _OURS)
        low, high = row[f"{what}_over_epss_low"], row[f"{what}_over_epss_high"]
        return f"{row[f'{what}_over_epss']:+.3g} [{low:+.3g}, {high:+.3g}]"

    print(
        f"""
For development only: the factors of threat() were chosen looking at this cut, so its figures are
optimistic and no test of them; only a later cut can be one.
Label {LABELS[0]}, {ours["positives"]} positives of {ours["of"]:,}: AUC {ours["auc"]:.3f}
[{ours["auc_low"]:.3f}, {ours["auc_high"]:.3f}], EPSS {epss["auc"]:.3f}
[{epss["auc_low"]:.3f}, {epss["auc_high"]:.3f}]; paired difference {difference(LABELS[0], "auc")},
with label {LABELS[1]} {difference(LABELS[1], "auc")}.
Allowed: on this cut the interval of the paired AUC difference is above 0 for
{beaten(LABELS[0], shown=True)} ({LABELS[1]}: {beaten(LABELS[1], shown=True)}).
Not allowed: the same for {beaten(LABELS[0], shown=False)}
({LABELS[1]}: {beaten(LABELS[1], shown=False)});
more hits in the first 1,000 than EPSS ({ours["hits_1000"]:.1f} against {epss["hits_1000"]:.1f},
difference {difference(LABELS[0], "hits_1000")}); the same figures on other days, products or lists
of exploitation, since KEV is late and selective. Intervals are stratified bootstraps
({_RESAMPLES:,} resamples, seed {_SEED}) of this cut: they do not hold the choice of the factors."""
    )


if __name__ == "__main__":
    main()
