import json

import pytest

from workbench.core.errors import DataError
from workbench.core.identity import file_sha256
from workbench.judge.judge_set import LABELS, load_judge_set

ROWS = [{"label": label, "topic": "t", "text": f"a {label} text"} for label in LABELS]


def written(tmp_path, lines):
    path = tmp_path / "judge.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_reads_rows_and_hash(tmp_path):
    path = written(tmp_path, [*ROWS, ""])
    judge_set = load_judge_set(path)
    assert judge_set.texts == [row["text"] for row in ROWS]
    assert judge_set.labels.tolist() == list(LABELS)
    assert judge_set.sha256 == file_sha256(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*ROWS, "{"], r"line 4 is not JSON"),
        ([*ROWS, "[]"], r"line 4: field .label. is None"),
        (
            [*ROWS, {"label": "harmful", "topic": "t", "text": ""}],
            r"line 4: field .text. is",
        ),
        ([*ROWS, {"label": "bad", "topic": "t", "text": "x"}], r"line 4: needs a label.*lookalike"),
        ([*ROWS, {"label": "harmful", "topic": 3, "text": "x"}], r"line 4: field .topic. is 3"),
        ([*ROWS, ROWS[0]], r"line 4 repeats the text of .*line 1"),
        (ROWS[:1], "benign or lookalike"),
    ],
)
def test_malformed_sets_are_refused_with_their_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        load_judge_set(written(tmp_path, lines))


def test_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        load_judge_set(tmp_path / "nothing.jsonl")
