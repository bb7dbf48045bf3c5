import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.risk.records import EXPOSURES, LEVELS
from workbench.risk.score import (
    EXPLOITATION,
    Signals,
    codes_of,
    impact,
    level,
    likelihood_of,
    model_threat,
    reasons,
    score,
    severity_impact,
    signals_of,
    threat,
)

_NAN = float("nan")
_AXES = {
    "epss": np.array([_NAN, 0, 1e-5, 0.0005, 0.0014, 0.02, 0.0999, 0.1, 0.5, 0.97, 1]),
    "cvss": np.array([_NAN, 0, 3.1, 7.4, 7.5, 9.8, 10]),
    "kev": np.arange(-1, 2, dtype=np.int8),
    "exploitation": np.arange(-1, 3, dtype=np.int8),
    "automatable": np.arange(-1, 2, dtype=np.int8),
    "technical_impact": np.arange(-1, 2, dtype=np.int8),
    "criticality": np.arange(0, 6, dtype=np.int8),
    "exposure": np.arange(-1, 3, dtype=np.int8),
}
"""Missing comes first on every axis; the rest rises."""


@pytest.fixture(scope="module")
def grids() -> dict[str, np.ndarray]:
    """Every combination: one array per number, one axis per signal."""
    shape = tuple(len(values) for values in _AXES.values())
    mesh = np.meshgrid(*_AXES.values(), indexing="ij")
    flat = dict(zip(_AXES, (values.ravel() for values in mesh), strict=True))
    likely = threat(Signals(*(flat[name] for name in Signals._fields)))
    bad = impact(flat["criticality"], flat["exposure"], flat["technical_impact"])
    worst = score(likely.likelihood, bad.impact)
    known = score(likely.likelihood_known, bad.impact_known)
    numbers = {**likely._asdict(), **bad._asdict(), "score": worst, "score_known": known}
    return {name: values.reshape(shape) for name, values in numbers.items()}


_AT_WORST = ("p_at_most", "likelihood", "impact", "score")
_KNOWN = ("p", "likelihood_known", "impact_known", "score_known")


@pytest.mark.parametrize("signal", _AXES)
@pytest.mark.parametrize("number", _AT_WORST)
def test_a_missing_source_never_lowers_a_score_whatever_it_said(grids, number, signal) -> None:
    axis = list(_AXES).index(signal)
    missing, *rest = np.moveaxis(grids[number], axis, 0)
    assert all((missing >= known).all() for known in rest)


@pytest.mark.parametrize("signal", _AXES)
@pytest.mark.parametrize("number", _AT_WORST + _KNOWN)
def test_more_of_a_signal_never_lowers_a_number(grids, number, signal) -> None:
    axis = list(_AXES).index(signal)
    told = np.moveaxis(grids[number], axis, 0)[1:]
    assert (np.diff(told.astype(float), axis=0) >= 0).all()


@pytest.mark.parametrize("number", _AT_WORST + _KNOWN)
def test_listing_in_kev_never_lowers_a_rank(grids, number) -> None:
    before, after = grids[number][:, :, 1], grids[number][:, :, 2]
    assert (after >= before).all()
    # Among all others, the rank cannot fall where the number does not.
    if number == "p":
        assert (after == 1).all()
        assert (grids["likelihood_known"][:, :, 2] == 5).all()


def test_the_worst_is_never_below_the_known(grids) -> None:
    for worst, known in zip(("p_at_most", *_AT_WORST[1:]), _KNOWN, strict=True):
        assert (grids[worst] >= grids[known]).all()
        told = grids[worst][tuple(slice(1, None) for _ in _AXES)]
        assert (told == grids[known][tuple(slice(1, None) for _ in _AXES)]).all()
    assert np.isfinite(grids["p"]).all()
    assert grids["p_at_most"].max() <= 1
    assert grids["score"].min() >= 1
    assert grids["score"].max() == 25


def _one(**given_: float) -> Signals:
    usual = {"epss": 0.1, "cvss": 7.5, "kev": 0, "exploitation": 0, "automatable": 0}
    values = {**usual, "technical_impact": 0, **given_}
    return Signals(
        *(
            np.array([values[name]], dtype=float if name in ("epss", "cvss") else np.int8)
            for name in Signals._fields
        )
    )


@pytest.mark.parametrize("exploitation", [0, 1, 2])
@pytest.mark.parametrize("automatable", [0, 1])
@pytest.mark.parametrize("total", [0, 1])
@pytest.mark.parametrize("cvss", [3.0, 7.5, 9.0])
def test_p_is_the_odds_of_epss_times_the_evidence(exploitation, automatable, total, cvss) -> None:
    signals = _one(
        cvss=cvss, exploitation=exploitation, automatable=automatable, technical_impact=total
    )
    odds = 0.1 / 0.9 * (1, 3, 10)[exploitation] * 2**automatable * 2**total * cvss / 7.5
    assert threat(signals).p[0] == pytest.approx(odds / (1 + odds))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10), st.floats(0, 10))
def test_a_higher_epss_or_cvss_never_lowers_p(epss, other_epss, cvss, other_cvss) -> None:
    low = threat(_one(epss=min(epss, other_epss), cvss=min(cvss, other_cvss)))
    high = threat(_one(epss=max(epss, other_epss), cvss=max(cvss, other_cvss)))
    assert low.p[0] <= high.p[0]
    assert low.likelihood[0] <= high.likelihood[0]


def test_active_exploitation_outside_kev_weighs_more_than_a_proof_of_concept() -> None:
    active = threat(_one(epss=0.0001, exploitation=EXPLOITATION.index("active")))
    poc = threat(_one(epss=0.0001, exploitation=EXPLOITATION.index("poc")))
    odds = [float(one.p[0] / (1 - one.p[0])) for one in (active, poc)]
    assert odds[0] / odds[1] == pytest.approx(10 / 3)


def test_likelihood_steps_where_it_is_said_to() -> None:
    steps = np.array([0, 0.000999, 0.001, 0.00999, 0.01, 0.0999, 0.1, 0.4999, 0.5, 1])
    assert likelihood_of(steps).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_every_score_has_its_level() -> None:
    found = [LEVELS[code] for code in level(np.arange(1, 26, dtype=np.int8))]
    expected = ["low"] * 4 + ["medium"] * 7 + ["high"] * 8 + ["critical"] * 6
    assert found == expected


def test_impact_follows_the_rule_in_every_known_case() -> None:
    for critical, exposed, total in itertools.product(range(1, 6), range(3), range(2)):
        shift = {("small", 0): -1, ("open", 1): 1}.get((EXPOSURES[exposed], total), 0)
        found = impact(*(np.array([value], dtype=np.int8) for value in (critical, exposed, total)))
        assert found.impact[0] == found.impact_known[0] == min(5, max(1, critical + shift))


def test_signals_read_a_table_of_evidence() -> None:
    table = pa.table(
        {
            "epss": pa.array([0.5, None], pa.float32()),
            "cvss": pa.array([None, 9.8]),
            "kev": pa.array([True, None]),
            "exploitation": pa.array(["active", "unheard of"]).dictionary_encode(),
            "automatable": pa.array([None, "yes"], pa.large_string()),
            "technical_impact": pa.nulls(2),
        }
    )
    signals = signals_of(table)
    assert signals.epss[0] == 0.5
    assert np.isnan(signals.epss[1])
    assert np.isnan(signals.cvss[0])
    assert [codes.tolist() for codes in signals[2:]] == [[1, -1], [2, -1], [-1, 1], [-1, -1]]
    assert len(signals_of(table.slice(0, 0)).kev) == 0


def test_codes_of_other_texts_are_missing() -> None:
    assert codes_of(pa.chunked_array([["no"], ["YES", None]]), ("no", "yes")).tolist() == [
        0,
        -1,
        -1,
    ]


def test_a_model_risk_has_the_rate_times_the_exposure() -> None:
    from scipy.stats import binomtest

    counts = [(11, 40), (0, 40), (40, 40), (1, 1)]
    won, tried = zip(*counts, strict=True)
    for code, factor in enumerate((0.1, 0.5, 1.0)):
        found = model_threat(won, tried, np.full(len(won), code))
        for position, pair in enumerate(counts):
            interval = binomtest(*pair).proportion_ci(method="wilson")
            assert found.p[position] == pytest.approx(pair[0] / pair[1] * factor)
            assert found.p_at_most[position] == pytest.approx(interval.high * factor)
        assert (found.likelihood == likelihood_of(found.p_at_most)).all()
        assert (found.likelihood_known == likelihood_of(found.p)).all()


def test_a_model_risk_that_nobody_tried_is_missing_not_safe() -> None:
    found = model_threat([0, 0], [0, 0], [-1, 0])
    assert found.p_at_most.tolist() == [1.0, 0.1]
    assert found.p.tolist() == [0.25, 0.05]
    assert found.likelihood[0] == 5


@given(st.integers(1, 200), st.data())
def test_a_model_risk_never_looks_smaller_for_less_knowledge(tried, data) -> None:
    won = data.draw(st.integers(0, tried))
    told = model_threat([won] * 3, [tried] * 3, [0, 1, 2]).p_at_most
    assert (np.diff(told) >= 0).all()
    assert model_threat([won], [tried], [-1]).p_at_most[0] == told[-1]
    assert (model_threat([0] * 3, [0] * 3, [0, 1, 2]).p_at_most >= told).all()


def test_more_successes_than_attempts_are_refused() -> None:
    with pytest.raises(ConfigError, match="3"):
        model_threat([3], [2], [0])


def test_severities_stand_for_partial_and_total() -> None:
    assert severity_impact(pa.array([*LEVELS, "odd", None])).tolist() == [0, 0, 1, 1, -1, -1]


_KINDS = ("kev", "epss", "exploitation", "automatable", "technical_impact", "cvss")
_ROW = {
    "epss": 0.94, "kev": True, "kev_added": "2021-12-10", "ransomware": True, "cvss": 9.8,
    "exploitation": "active", "automatable": "yes", "technical_impact": "total",
    "criticality": 4, "exposure": "open",
    **{f"{kind}_status": "checked" for kind in _KINDS},
    **{f"{kind}_source": "S" for kind in _KINDS},
    **{f"{kind}_as_of": "2026-08-22" for kind in _KINDS},
}  # fmt: skip


def test_reasons_tell_values_sources_and_dates() -> None:
    said = reasons(_ROW)
    epss = "EPSS 0.94: 94 % chance of exploitation activity within 30 days (S, 2026-08-22)"
    assert epss in said
    assert "KEV: exploited since 2021-12-10; used by ransomware (S, 2026-08-22)" in said
    assert "exposure open" in said
    assert not any("not known" in line or "stale" in line for line in said)
    assert len(said) == len(_KINDS) + 2


@pytest.mark.parametrize("kind", [*_KINDS, "criticality", "exposure"])
@pytest.mark.parametrize("nothing", [None, _NAN, ""])
def test_reasons_name_what_is_missing_and_what_was_assumed(kind, nothing) -> None:
    said = [line for line in reasons({**_ROW, kind: nothing}) if "not known" in line]
    assert len(said) == 1
    assert "taken as" in said[0]
    assert "in the known score" in said[0]


@pytest.mark.parametrize("kind", _KINDS)
def test_reasons_name_what_is_stale(kind) -> None:
    said = [line for line in reasons({**_ROW, f"{kind}_status": "stale"}) if "stale" in line]
    assert len(said) == 1


def test_reasons_of_an_empty_row_name_everything() -> None:
    said = reasons({"weakness_status": "missing", "techniques_status": "stale"})
    assert sum("taken as" in line for line in said) == len(_KINDS) + 2
    assert sum("not part of the score" in line for line in said) == 2


def test_values_of_no_meaning_are_said_to_be_missing_as_they_are_scored() -> None:
    said = reasons({**_ROW, "exploitation": "<script>"})
    assert "exploitation not known: taken as active (none in the known score)" in said


def test_reasons_of_a_model_risk() -> None:
    said = reasons(
        {"kind": "model", "successes": 11, "attempts": 40, "severity": "high", "exposure": None}
    )
    assert said[0] == "11 of 40 attempts got through; at most 43 % (95 % Wilson)"
    assert said[1] == "severity high: impact total"
    assert any(line.startswith("exposure not known: taken as open") for line in said)
    untried = reasons({"kind": "model", "successes": 0, "attempts": 0, "severity": "?"})
    assert "no attempt counted" in untried[0]
    assert "severity not known" in untried[1]
