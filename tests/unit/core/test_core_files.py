"""Every way a file can be wrong gives one line that names file, place and fix."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.core.errors import DataError
from workbench.core.files import read_object, read_table, text_in, texts_in

ROWS = [{"text": "eins, zwei", "n": 1}, {"text": 'drei "vier"\nfünf', "n": 2}]


def write(tmp_path, name, data):
    path = tmp_path / name
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.fixture(params=["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "jsonl.gz"])
def same_rows(request, tmp_path):
    kind = request.param.removesuffix(".gz")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
        return tmp_path / "rows.parquet"
    delimiter = "\t" if kind == "tsv" else ","
    cells = [["text", "n"], *([row["text"].replace('"', '""'), str(row["n"])] for row in ROWS)]
    text = {
        "csv": "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in cells),
        "jsonl": "\n".join(json.dumps(row) for row in ROWS),
        "json": json.dumps(ROWS),
    }
    return write(tmp_path, f"rows.{request.param}", text["csv" if kind == "tsv" else kind])


def test_all_formats_say_the_same(same_rows):
    table = read_table(same_rows)
    assert table.texts("text") == [row["text"] for row in ROWS]
    assert table.labels(1) == ["1", "2"]


def test_lists_bare_texts_and_lines(tmp_path):
    nested = write(tmp_path, "a.json", json.dumps({"x": {"train": [["hi", "greet"]]}}))
    assert read_table(nested, rows="x.train").texts(0) == ["hi"]
    assert read_table(write(tmp_path, "b.json", '["one", "two"]')).texts("text") == ["one", "two"]
    assert read_table(write(tmp_path, "c.txt", "one\n\ntwo\n")).texts(0) == ["one", "two"]


def test_marks_and_kinds(tmp_path):
    assert read_table(write(tmp_path, "a.csv", b"\xef\xbb\xbftext\nhi\n")).texts("text") == ["hi"]
    assert read_table(write(tmp_path, "a.data", "text\nhi\n"), kind="csv").texts("text") == ["hi"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "text\n", "holds no rows"),
        ("a.csv", "text,n\nhello\n", "line 2 has 1 fields, not 2"),
        ("a.csv", 'text\n"hello', "is not CSV"),
        ("a.csv", "text,text\na,b", "two columns have one name"),
        ("a.csv", b"text\nh\xe9llo\n", "not UTF-8 at byte 6 (0xe9)"),
        ("a.csv", b"\xef\xbb\xbftext\nh\xe9llo\n", "not UTF-8 at byte 9 (0xe9)"),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', "line 3 is not JSON"),
        ("a.json", "[\n1,\n", "line 3 is not JSON"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.json", '{"train": []}', "keys there: train"),
        ("a.json", "[3]", "row 1 is int"),
        ("a.parquet", "no", "not Parquet"),
        ("a.xlsx", "no", "unknown format 'xlsx'"),
    ],
)
def test_broken_files(tmp_path, name, data, words):
    path = write(tmp_path, name, data)
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert "\n" not in message


def test_missing_damaged_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"text\nhello hello hello\n")[:-9])
    with pytest.raises(DataError, match="damaged gzip"):
        read_table(tmp_path / "b.csv.gz")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path, kind="csv")


def test_columns(tmp_path):
    table = read_table(write(tmp_path, "a.jsonl", '{"a": "x", "b": null}\n{"a": 3, "b": [1]}\n'))
    with pytest.raises(DataError, match=r"no column 'c'; the columns are: a, b"):
        table.texts("c")
    with pytest.raises(DataError, match=r"no column 2"):
        table.texts(2)
    with pytest.raises(DataError, match=r"line 2: column 'a' holds int"):
        table.texts("a")
    with pytest.raises(DataError, match=r"line 2: column 'b' holds list"):
        table.labels("b")
    assert table.labels("a") == ["x", "3"]


def test_places_are_those_of_the_file(tmp_path):
    table = read_table(write(tmp_path, "a.jsonl", '\n{"a": "x"}\n\n{"a": "y"}\n'))
    assert [place.rpartition(": ")[2] for place in table.places] == ["line 2", "line 4"]
    separated = read_table(write(tmp_path, "a.txt", "one\u2028two\nthree"))
    assert separated.texts("text") == ["one\u2028two", "three"]


def test_fields(tmp_path):
    assert text_in({"a": " x "}, "a", place="p") == "x"
    assert texts_in({"a": ["x", "y"]}, "a", place="p") == ("x", "y")
    for value in (None, "", " ", 3):
        with pytest.raises(DataError, match="p: field 'a' is"):
            text_in({"a": value}, "a", place="p")
    for wrong in (None, [], "x", [3], [""]):
        with pytest.raises(DataError, match="p: field 'a' is not a list of texts"):
            texts_in({"a": wrong}, "a", place="p")
    with pytest.raises(DataError, match="holds list, not a JSON object"):
        read_object(write(tmp_path, "a.json", "[]"))


def test_long_fields_do_not_stop_the_reader(tmp_path):
    long = "x" * 200_000
    assert read_table(write(tmp_path, "a.csv", f"text\n{long}\n")).texts(0) == [long]
