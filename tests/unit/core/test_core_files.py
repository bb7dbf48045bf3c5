"""Every way a file can be wrong gives one line that names file, place and fix."""

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.core import files
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
    semicolons = write(tmp_path, "b.csv", "text;n\nhi;1\n")
    assert read_table(semicolons, delimiter=";").texts("text") == ["hi"]
    assert read_table(semicolons, delimiter=",").labels(0) == ["hi;1"]
    with pytest.raises(DataError, match="not JSON"):
        read_table(write(tmp_path, "c.jsonl", "[\n1,"))
    for array in ('[{"a": "x"}]', '[\n{"a": "x"}\n]', '[{"a":\n"x"}]'):
        assert read_table(write(tmp_path, "d.jsonl", array)).texts("a") == ["x"]
    assert read_table(write(tmp_path, "e.jsonl", '["x", 1]\n["y", 2]')).texts(0) == ["x", "y"]


def test_stars_stand_for_keys_and_keep_them(tmp_path):
    nested = {"pets": {"cats": ["a", "b"], "dogs": []}, "trees": {"oaks": ["c"]}}
    table = read_table(write(tmp_path, "a.json", json.dumps(nested)), rows="*.*")
    assert table.texts("text") == ["a", "b", "c"]
    assert table.labels("*1") == ["pets", "pets", "trees"]
    assert table.labels("*2") == ["cats", "cats", "oaks"]
    lists = write(tmp_path, "b.json", '{"x": {"y": [["hi", 1]]}}')
    assert read_table(lists, rows="x.*").labels("*1") == ["y"]
    for rows, words in (("pets.*.x", "no 'x' on the way"), ("*", "is not a list")):
        with pytest.raises(DataError, match=words):
            read_table(tmp_path / "a.json", rows=rows)


def test_truncated_files(tmp_path):
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 500), whole)
    for share in (0.1, 0.5, 0.99):
        cut = write(
            tmp_path, "cut.parquet", whole.read_bytes()[: int(whole.stat().st_size * share)]
        )
        with pytest.raises(DataError, match=r"cut.parquet: not Parquet"):
            read_table(cut)
    packed = gzip.compress(b"".join(b"text %d\n" % n for n in range(5000)))
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.txt.gz").write_bytes(packed[: int(len(packed) * share)])
        with pytest.raises(DataError, match=r"cut.txt.gz: damaged gzip"):
            read_table(tmp_path / "cut.txt.gz")


def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_BYTES", 1000)
    assert len(read_table(write(tmp_path, "a.txt.gz", "x\n" * 500)).rows) == 500
    with pytest.raises(DataError, match="unpacks to over 1,000 bytes"):
        read_table(write(tmp_path, "b.txt.gz", "x\n" * 501))


def test_a_text_that_a_row_lacks_is_named_and_a_label_is_empty(tmp_path):
    rows = '{"a": "x", "b": 1}\n{"a": "y"}\n{"a": null, "b": null}'
    table = read_table(write(tmp_path, "a.jsonl", rows))
    assert table.texts("a") == ["x", "y", ""]
    assert table.labels("b") == ["1", "", ""]
    with pytest.raises(DataError, match="line 2 has no 'b'; write it there, null for none"):
        table.texts("b")


def test_other_rows_in_the_place_of_those_of_the_file(tmp_path):
    table = read_table(write(tmp_path, "a.jsonl", '{"a": "x"}\n{"a": "y"}'))
    other = table.with_rows(
        (place, {"b": row["a"]}) for place, row in zip(table.places, table.rows, strict=True)
    )
    assert (other.names, other.texts("b"), other.places) == (("b",), ["x", "y"], table.places)
    with pytest.raises(DataError, match="no usable row"):
        table.with_rows([])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "text\n", "holds no rows"),
        ("a.csv", "text,n\nhello\n", "line 2 has 1 fields, not 2"),
        ("a.csv", 'text\n"hello', "is not CSV"),
        ("a.csv", "text,text\na,b", "two columns have one name"),
        ("a.csv", b"text\nh\xe9llo\n", "not UTF-8 at byte 6 (0xe9, line 2)"),
        ("a.csv", b"\xef\xbb\xbftext\nh\xe9llo\n", "not UTF-8 at byte 9 (0xe9, line 2)"),
        ("a.csv", "text;n\na;1\n", "seems to use ';'; set delimiter to ';'"),
        ("a.csv", "text\tn\na\t1\n", r"seems to use '\t'"),
        ("a.tsv", "text,n\na,1\n", "seems to use ','"),
        ("a.csv", "text,n\na,1\nb\n", "line 3 has 1 fields, not 2"),
        ("a.csv", "text\nhi\n".encode("utf-16"), "is UTF-16 or UTF-32"),
        ("a.csv", "text\nhi\n".encode("utf-16-be"), "null byte at byte 0"),
        ("a.jsonl", b'{"a": "x\x00y"}', "null byte at byte 8"),
        (
            "a.csv",
            b"text\n" + "é\n".encode() * 9 + "ü\n".encode("cp1252"),
            "byte 32 (0xfc, line 11)",
        ),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', "line 3 is not JSON"),
        ("a.json", "[\n1,\n", "line 3 is not JSON"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.json", '{"train": []}', "keys there: train"),
        ("a.json", "[3]", "row 1 is int"),
        ("a.json", '{"train": {"x": [1], "y": {}}}', "keys there: train"),
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


def test_a_cell_of_5_mb_takes_a_few_times_its_size(tmp_path):
    path = write(tmp_path, "a.csv", "text,n\n" + "é\u2028" * 1_000_000 + ",1\nb,2\n")
    tracemalloc.start()
    table = read_table(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(text) for text in table.texts("text")] == [2_000_000, 1]
    assert peak < 8 * path.stat().st_size
