import csv
import gzip
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_data import shared
from workbench.core.errors import DataError
from workbench.risk.cvss import cvss_score, cvss_scores

_PUBLISHED = {
    "AV:N/AC:L/Au:N/C:N/I:N/A:C": 7.8,  # specification 2.0, section 3.3.1
    "AV:N/AC:L/Au:N/C:C/I:C/A:C": 10.0,  # 3.3.2
    "AV:L/AC:H/Au:N/C:C/I:C/A:C": 6.2,  # 3.3.3
    "CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N": 7.5,  # Heartbleed, examples of 3.0
    "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H": 10.0,  # CVE-2021-44228
    "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 9.8,
    "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": 9.3,
    "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H": 10.0,
    "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:N/SC:N/SI:N/SA:N": 0.0,
}
_V3 = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
_WRONG = {
    _V3.replace("AV:N", "AV:Z"): "AV",
    _V3.removesuffix("/A:H"): '"A"',
    _V3 + "/A:H": '"A"',
    _V3 + "/QQ:H": "QQ",
    "AV:N/AC:L/Au:N/C:P/I:P/A:Q": "A:Q",
    "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:B": "SA:B",
    "CVSS:5.0/AV:N": "version",
    "9.8": "field",
    _V3 * 20: "characters",
    "AV:N\n/AC": "field",
}


@pytest.mark.parametrize(("vector", "score"), _PUBLISHED.items())
def test_scores_are_the_published_ones(vector, score) -> None:
    assert cvss_score(vector) == score
    assert cvss_score(f" {vector}\n") == score


def test_a_vector_of_version_2_may_stand_in_parentheses() -> None:
    assert cvss_score("(AV:N/AC:L/Au:N/C:N/I:N/A:C)") == 7.8


@pytest.mark.parametrize(("vector", "metric"), _WRONG.items())
def test_a_typo_is_named_with_its_vector_and_metric(vector, metric) -> None:
    with pytest.raises(DataError) as caught:
        cvss_score(vector)
    message = str(caught.value)
    assert message.startswith(f"CVSS vector {vector[:20]!r}"[:-1])
    assert metric in message.rsplit("':", maxsplit=1)[-1]
    assert "\n" not in message
    assert len(message) < 400


@given(st.one_of(st.text(), st.text("CVSS:340/AVNLPCUIHRSE()", max_size=60), st.from_regex(
    r"\ACVSS:(3\.1|4\.0)(/[A-Z]{1,3}:[A-Z]){0,12}\Z")))  # fmt: skip
def test_any_text_is_a_score_or_a_named_error(text) -> None:
    try:
        score = cvss_score(text)
    except DataError as error:
        score, told = 0.0, str(error)
        assert told.startswith("CVSS vector")
    assert 0 <= score <= 10


def test_columns_agree_with_single_vectors() -> None:
    vectors = [*_PUBLISHED, None, "", "  ", *_WRONG, *_PUBLISHED]
    for column in (
        pa.array(vectors),
        pa.array(vectors).dictionary_encode(),
        pa.chunked_array([vectors[:5], vectors[5:]]),
        pa.array(vectors, pa.large_string()),
    ):
        scores, problems = cvss_scores(column)
        for vector, score in zip(vectors, scores, strict=True):
            assert score == _PUBLISHED[vector] if vector in _PUBLISHED else np.isnan(score)
        assert len(problems) == len(_WRONG)
    assert np.isnan(cvss_scores(pa.nulls(3))[0]).all()
    assert len(cvss_scores(pa.array([], pa.string()))[0]) == 0


def test_each_different_vector_is_computed_once(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        "workbench.risk.cvss.cvss_score", lambda vector: asked.append(vector) or 1.0
    )
    scores, _ = cvss_scores(pa.array(list(_PUBLISHED) * 1000))
    assert len(scores) == 1000 * len(_PUBLISHED)
    assert sorted(asked) == sorted(_PUBLISHED)


def test_many_problems_are_counted_not_listed() -> None:
    _, problems = cvss_scores(pa.array([f"{_V3}/X:{n}" for n in range(250)]))
    assert len(problems) == 101
    assert problems[-1].startswith("150 more")


def test_the_library_is_loaded_when_it_is_needed() -> None:
    code = "import sys, workbench.risk.cvss; sys.exit('cvss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scores_of_real_records_are_those_that_their_authors_gave() -> None:
    told: dict[str, set[float]] = {}
    with gzip.open(shared("risk/eval_prioritisation.csv.gz"), "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # Where a vector has temporal metrics, some authors give the temporal score.
            if row["cvss3_vector"] and "/E:" not in row["cvss3_vector"]:
                told.setdefault(row["cvss3_vector"], set()).add(float(row["cvss3_score"]))
    scores, problems = cvss_scores(pa.array(list(told)))
    assert problems == []
    differ = [
        vector for vector, score in zip(told, scores, strict=True) if score not in told[vector]
    ]
    # Three vectors, used once each, whose authors miscounted.
    assert len(differ) <= 3 < len(told) / 500
