"""A table of any length: pages by number, the same whatever the rows come from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_texts import HOSTILE
from workbench.core.errors import ConfigError, StoreError
from workbench.notebook.widgets.table import Arrow, PagedTable, Rows

COLUMNS = ("name", "size", "flag")
ROWS = [
    {"name": f"row {number % 7} é", "size": (number * 37) % 101, "flag": number % 3 == 0}
    for number in range(230)
]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=40)
    return path


def listen(table):
    sent = []
    table.send = lambda content, buffers=None: sent.append(
        json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    )
    return sent


def sources(file):
    whole = pa.Table.from_pylist(ROWS)
    coded = whole.set_column(0, "name", whole.column("name").dictionary_encode())
    return [
        Arrow(file, columns=COLUMNS),
        Arrow(whole, columns=COLUMNS),
        Arrow(coded, columns=COLUMNS),
    ]


@settings(max_examples=40, deadline=None)
@given(
    place=st.tuples(st.integers(0, 250), st.integers(1, 60)),
    sort=st.sampled_from(["", "size", "name"]), descending=st.booleans(),
    words=st.sampled_from(["", "ROW 3", "é", "7", "nothing", "%", "true"]),
)  # fmt: skip
def test_every_source_gives_the_same_pages(file, place, sort, descending, words):
    offset, size = place
    expected = [
        row for row in ROWS
        if any(words.casefold() in str(value).casefold() for value in row.values())
    ]  # fmt: skip
    if sort:
        expected = sorted(expected, key=lambda row: row[sort], reverse=descending)
    for source in [Rows(ROWS), *sources(file)]:
        assert source.count(words) == len(expected)
        page = source.page(offset, size, sort, descending, words)
        if sort:  # what is equal may stand in any order, but pages never overlap
            assert [row[sort] for row in page] == [
                row[sort] for row in expected[offset : offset + size]
            ]
        else:
            assert page == expected[offset : offset + size]


@pytest.mark.parametrize("sort", ["", "size", "name", "flag"])
def test_pages_hold_every_row_once(file, sort):
    for source in sources(file):
        found = [
            row for offset in range(0, 230, 25) for row in source.page(offset, 25, sort, False, "")
        ]
        assert sorted(map(str, found)) == sorted(map(str, ROWS))


def test_no_more_than_a_row_group_of_a_file_is_held(file):
    source = Arrow(file, columns=COLUMNS)
    source.page(0, 25, "", False, "")
    assert source._groups._last[2].num_rows == 40
    assert source.page(100, 25, "", False, "") == ROWS[100:125]
    assert source._groups._last[2].num_rows == 40


def test_a_page_is_texts_with_what_is_chosen():
    table = PagedTable(Rows(ROWS), label="Rows", key="size")
    answer = table.answer({"page": 1, "id": 7})
    assert (answer["id"], answer["page"], answer["count"]) == (7, 1, 230)
    assert answer["rows"][0] == ["row 1 é", str(ROWS[50]["size"]), "False"]
    assert len(answer["rows"]) == 50
    assert len(table.answer({"page": 4})["rows"]) == 30
    assert table.answer({"page": 9})["rows"] == []
    assert table.heads == ["Name", "Size", "Flag"]
    table.close()


def test_rows_are_chosen_and_let_go_in_the_order_that_is_seen():
    table = PagedTable(Rows(ROWS), label="Rows", key="name")
    sent = listen(table)
    order = {"sort": 1, "descending": True, "filter": ""}
    first = max(ROWS, key=lambda row: row["size"])
    table._handle_custom_msg({"choose": 0, **order}, [])
    assert table.selected == [first["name"]]
    assert sent == [{"row": 0, "is_chosen": True}]
    assert 0 in table.answer({"page": 0, **order})["chosen"]
    table._handle_custom_msg({"choose": 0, **order}, [])
    assert table.selected == []
    table._handle_custom_msg({"choose": 10_000, **order}, [])
    assert table.selected == []
    table.close()


def test_a_row_is_opened_by_its_key_and_errors_are_told():
    opened = []

    def show(key):
        opened.append(key)
        raise StoreError("it is\ngone")

    table = PagedTable(Rows(ROWS), label="Rows", key=lambda row: f"<{row['size']}>", opened=show)
    sent = listen(table)
    table._handle_custom_msg({"open": 3}, [])
    assert opened == [f"<{ROWS[3]['size']}>"]
    assert sent == [{"error": "it is gone"}]
    table.close()


@pytest.mark.parametrize(
    "asked",
    [
        {"page": "0"}, {"page": 2**40}, {"page": True}, {"page": None}, {"page": 0, "sort": 3},
        {"page": 0, "sort": "name"}, {"page": -2}, {"choose": []}, {"open": 1.5},
    ],
)  # fmt: skip
def test_senseless_requests_are_told_in_one_line(asked):
    table = PagedTable(Rows(ROWS), label="Rows", key="name")
    sent = listen(table)
    table._handle_custom_msg(asked, [])
    assert list(sent[0]) == ["error"]
    with pytest.raises(ConfigError):
        table.answer({"page": 0, **asked} if "page" in asked else {"page": "x"})
    table.close()


def test_what_is_no_object_is_passed_over():
    table = PagedTable(Rows(ROWS), label="Rows")
    sent = listen(table)
    for content in (None, [], "page", 3):
        table._handle_custom_msg(content, [])
    assert sent == []
    assert table.answer({"page": 0, "filter": None, "id": "x"})["id"] == 0
    table.close()


def test_other_rows_make_pages_ask_again():
    table = PagedTable(Rows(ROWS), label="Rows", key="name")
    table.selected = ["row 1 é"]
    sent = listen(table)
    table.replace(Rows(ROWS[:3]))
    assert sent == [{"stale": 1}]
    assert table.selected == []
    assert table.answer({"page": 0})["count"] == 3
    table.close()


def test_hostile_texts_are_cells_that_show_everything():
    rows = [{"text": text, "note": None, "rate": 1 / 3} for text in HOSTILE]
    table = PagedTable(Rows(rows), label=HOSTILE[0], labels={"text": HOSTILE[1]})
    for page in range(3):
        answer = table.answer({"page": page})
        json.dumps(answer, ensure_ascii=False).encode("utf-8")
        for cells in answer["rows"]:
            assert all(char.isprintable() or char in "\n\t" for char in cells[0])
            assert len(cells[0]) < 200 + 40 * len("⟨U+10FFFF⟩")
            assert cells[1:] == ["–", "0.3333"]
    assert Rows([]).count("x") == 0
    table.close()


def test_the_page_never_reads_a_text_as_markup_and_asks_nobody_else():
    folder = Path(__file__).parents[3] / "src/workbench/notebook/widgets"
    script = (folder / "table.js").read_text(encoding="utf-8")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
        "document.write",
        "fetch(",
    ):
        assert word not in script
    everything = script + "".join(
        (folder / name).read_text(encoding="utf-8")
        for name in ("table.css", "panel.js", "panel.css", "panel.html.j2")
    )
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|import ", everything)


@pytest.mark.parametrize("what", ["choose", "open", "press"])
def test_a_row_that_moved_since_it_was_seen_is_not_taken_for_another(what):
    seen = []
    rows = [{"name": "a"}, {"name": "b"}]
    table = PagedTable(
        Rows(rows), label="Rows", key="name", opened=seen.append, actions={"c": "Confirm"},
        pressed=lambda _key, row, _note: seen.append(row),
    )  # fmt: skip
    sent = listen(table)
    mark = table.answer({"page": 0})["marks"][0]
    rows.insert(0, {"name": "new"})
    table._handle_custom_msg({what: 0, "key": "c", "mark": mark}, [])
    assert seen == list(table.selected) == []
    assert sent[0] == {"stale": 1}
    assert "changed meanwhile" in sent[1]["error"]
    table._handle_custom_msg({what: 1, "key": "c", "mark": mark}, [])
    assert [*seen, *table.selected] == ["a"]
    table.close()


def test_a_damaged_file_and_a_filter_that_is_no_text_are_told(tmp_path):
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"PAR1 is how it should begin and end")
    table = PagedTable(Arrow(file, columns=("name",)), label="Rows", key="name")
    sent = listen(table)
    table._handle_custom_msg({"page": 0}, [])
    assert "rows.parquet: damaged" in sent[0]["error"]
    pq.write_table(pa.table({"name": ["a", "?"]}), file)
    table._handle_custom_msg({"page": 0, "filter": "\ud800"}, [])
    assert sent[1]["rows"] == [["?"]]
    table.close()
