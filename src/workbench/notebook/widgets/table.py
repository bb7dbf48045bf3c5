"""A table of any length: a page shows some rows and asks for others by number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, reduce
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anywidget
import traitlets

from workbench.core.errors import ConfigError, DataError, WorkbenchError
from workbench.core.identity import text_id
from workbench.core.plain import one_line, storable
from workbench.notebook.widgets import look
from workbench.report.tables import words

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Arrow", "PagedTable", "Rows", "Source"]

_PAGE = 50
_MARK = 12
_MOST_CELL = 200
_MOST_FILTER = 500
_MOST_ROWS = 2**31
_KEPT_ORDERS = 4


class Source(Protocol):
    """Rows that are had by page; a filter is a text that some cell of a row contains."""

    columns: Sequence[str]

    def count(self, filter: str) -> int:  # noqa: A002 - the word of the interface
        """Return how many rows pass the filter."""
        ...

    def page(
        self, offset: int, size: int, sort: str, descending: bool, filter: str,  # noqa: A002
    ) -> list[Mapping[str, Any]]:  # fmt: skip
        """Return some rows of those that pass, sorted by a column, in their own order if empty."""
        ...


class Rows:
    """Rows that are in memory already, for short lists.

    Args:
        rows: All of them.
        columns: Those to show, in this order; all of the first row if not given.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] = ()) -> None:
        self._rows = rows
        self.columns: Sequence[str] = tuple(columns or (rows[0] if rows else ()))

    def count(self, filter: str) -> int:  # noqa: A002
        """Return how many rows pass the filter."""
        return len(self._passing(filter))

    def page(
        self, offset: int, size: int, sort: str, descending: bool, filter: str,  # noqa: A002
    ) -> list[Mapping[str, Any]]:  # fmt: skip
        """Return a page; numbers sort as numbers, before texts."""
        found = self._passing(filter)
        if sort:
            found = sorted(found, key=lambda row: _rank(row.get(sort)), reverse=descending)
        return list(found[offset : offset + size])

    def _passing(self, words: str) -> Sequence[Mapping[str, Any]]:
        if not words:
            return self._rows
        wanted = words.casefold()
        return [
            row
            for row in self._rows
            if any(wanted in str(row.get(name)).casefold() for name in self.columns)
        ]


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


class Arrow:
    """Rows of an Arrow table or a Parquet file; of a file no more than a row group is held.

    Args:
        data: The table, or the path of the file.
        columns: Those to show, in this order: texts, numbers and flags.
    """

    def __init__(self, data: pa.Table | Path, *, columns: Sequence[str]) -> None:
        self.columns: Sequence[str] = tuple(columns)
        self._data = data
        self._orders: dict[tuple[str, bool, str], pa.Array | None] = {}

    @cached_property
    def _groups(self) -> _Groups | _Whole:
        return _Groups(self._data) if isinstance(self._data, Path) else _Whole(self._data)

    def count(self, filter: str) -> int:  # noqa: A002
        """Return how many rows pass the filter."""
        order = self._order("", False, filter)
        return self._groups.rows if order is None else len(order)

    def page(
        self, offset: int, size: int, sort: str, descending: bool, filter: str,  # noqa: A002
    ) -> list[Mapping[str, Any]]:  # fmt: skip
        """Return a page; what is equal keeps the order of the data."""
        order = self._order(sort, descending, filter)
        if order is None:
            wanted = list(range(offset, min(offset + size, self._groups.rows)))
        else:
            wanted = order.slice(offset, size).to_pylist()
        if not wanted:
            return []
        return self._groups.take(wanted, self.columns)

    def _order(self, sort: str, descending: bool, words: str) -> pa.Array | None:
        """Return the places of the rows that pass, in order; None for all as they are."""
        key = (sort, descending, words)
        if key not in self._orders:
            while len(self._orders) >= _KEPT_ORDERS:
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = self._sorted(sort, descending, words)
        return self._orders[key]

    def _sorted(self, sort: str, descending: bool, words: str) -> pa.Array | None:
        import pyarrow.compute as pc

        passing = None
        if words:
            hits = (self._contains(self._groups.column(name), words) for name in self.columns)
            passing = pc.indices_nonzero(reduce(pc.or_, hits))
        if not sort:
            return passing
        column = self._groups.column(sort)
        column = column if passing is None else column.take(passing)
        keys = [("", "descending" if descending else "ascending")]
        places = pc.sort_indices(column, sort_keys=keys)
        return places if passing is None else passing.take(places)

    @staticmethod
    def _contains(column: pa.ChunkedArray, words: str) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.match_substring(column.cast(pa.string()), words, ignore_case=True)
        return pc.fill_null(found, False)


class _Whole:
    """An Arrow table that is in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.rows: int = table.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        import pyarrow as pa

        column = self._table.column(name)
        is_coded = pa.types.is_dictionary(column.type)
        return column.cast(column.type.value_type) if is_coded else column

    def take(self, places: Sequence[int], columns: Sequence[str]) -> list[Mapping[str, Any]]:
        return list(self._table.select(columns).take(places).to_pylist())


class _Groups:
    """A Parquet file, read a row group at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowException as error:
            raise DataError(f"{path}: damaged ({error}); run the execution again") from error
        known = self._file.metadata
        sizes = [known.row_group(at).num_rows for at in range(known.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self.rows: int = known.num_rows
        self._last: tuple[int, tuple[str, ...], Any] | None = None

    def column(self, name: str) -> pa.ChunkedArray:
        return self._file.read(columns=[name]).column(name)

    def take(self, places: Sequence[int], columns: Sequence[str]) -> list[Mapping[str, Any]]:
        by_group: dict[int, list[int]] = {}
        for place in places:
            by_group.setdefault(bisect_right(self._starts, place) - 1, []).append(place)
        found: dict[int, Mapping[str, Any]] = {}
        for at, some in by_group.items():
            local = [place - self._starts[at] for place in some]
            rows = self._group(at, tuple(columns)).take(local).to_pylist()
            found.update(zip(some, rows, strict=True))
        return [found[place] for place in places]

    def _group(self, at: int, columns: tuple[str, ...]) -> pa.Table:
        if self._last is None or self._last[:2] != (at, columns):
            self._last = (at, columns, self._file.read_row_group(at, columns=list(columns)))
        return self._last[2]


class PagedTable(anywidget.AnyWidget):  # type: ignore[misc]  # no stubs
    """A grid over a source: sorted, filtered and chosen from by mouse or keyboard.

    Args:
        source: Where rows come from.
        label: What the table holds, for those who hear it.
        labels: Column → its head; the column's name as words if absent.
        widths: Column → its share of the width; 1 if absent.
        key: Column by which a row is known in :attr:`selected`, or what tells it of a row; needed
            for choosing and opening.
        opened: Called with the key when a row is opened with Enter or a double click.
        height: Rows shown at once.
        actions: Key of the keyboard → what it does to the row one is at, also shown as a button. A
            table with some opens each row that one comes to, and Enter goes to the next.
        note_key: The one of them that takes a note, which goes along with the others too.
        pressed: Called with the key that was pressed, the key of the row (empty: there is none),
            and the note.
    """

    _esm = (Path(__file__).parent / "table.js").read_text(encoding="utf-8")
    _css = (Path(__file__).parent / "table.css").read_text(encoding="utf-8")
    label = traitlets.Unicode().tag(sync=True)
    heads = traitlets.List(traitlets.Unicode()).tag(sync=True)
    widths = traitlets.List(traitlets.Float()).tag(sync=True)
    height = traitlets.Int(15).tag(sync=True)
    page_size = traitlets.Int(_PAGE).tag(sync=True)
    actions = traitlets.Dict().tag(sync=True)
    note_key = traitlets.Unicode().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode())
    """Keys of the rows that are chosen, in the order of choosing; stays in Python."""

    def __init__(
        self,
        source: Source,
        *,
        label: str,
        labels: Mapping[str, str] | None = None,
        widths: Mapping[str, float] | None = None,
        key: str | Callable[[Mapping[str, Any]], str] = "",
        opened: Callable[[str], None] | None = None,
        height: int = 15,
        actions: Mapping[str, str] | None = None,
        note_key: str = "",
        pressed: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self._source, self._key, self._opened, self._pressed = source, key, opened, pressed
        named, wide = labels or {}, widths or {}
        heads = [look.shown(named.get(one, words(one).capitalize())) for one in source.columns]
        shares = [wide.get(one, 1.0) for one in source.columns]
        super().__init__(
            label=look.shown(label), heads=heads, widths=shares, height=height,
            actions=dict(actions or {}), note_key=note_key,
        )  # fmt: skip
        self.on_msg(self._asked)

    def replace(self, source: Source, *, step: int = 0) -> None:
        """Show other rows of the same columns; what was chosen is let go.

        Args:
            source: Where they come from.
            step: How many rows to go on from the one that one is at.
        """
        self._source, self.selected = source, []
        self.refresh(step=step)

    def refresh(self, *, step: int = 0) -> None:
        """Have pages ask again: rows were added or changed."""
        self.send({"stale": 1, "step": step} if step else {"stale": 1})

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return a page of rows as texts.

        Args:
            asked: ``page`` from 0, and as wanted ``sort`` (place of a column, -1 for none),
                ``descending``, ``filter`` and ``id``, which comes back.

        Raises:
            ConfigError: If a value makes no sense.
        """
        rows = self._rows(asked)
        chosen = set(self.selected)
        return {
            "id": asked.get("id") if isinstance(asked.get("id"), int) else 0,
            "page": _whole(asked, "page"),
            "count": self._source.count(_filter(asked)),
            "marks": [_mark(self._key_of(row)) for row in rows],
            "rows": [[_cell(row.get(name)) for name in self._source.columns] for row in rows],
            "chosen": [at for at, row in enumerate(rows) if self._key_of(row) in chosen],
        }

    def _asked(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        try:
            if "press" in content:
                self._press(content)
            elif "choose" in content or "open" in content:
                self._act(content)
            else:
                self.send(self.answer(content))
        except (WorkbenchError, OSError) as error:  # also what opening a row met with
            self.send({"error": look.cut(one_line(look.shown(error)), 400)})

    def _act(self, content: Mapping[str, Any]) -> None:
        """Choose or open the row at a place of the present order."""
        what = "choose" if "choose" in content else "open"
        at, key = self._meant(content, what)
        if not key or what == "open":
            if key and self._opened:
                self._opened(key)
            return
        others = [one for one in self.selected if one != key]
        self.selected = others if key in self.selected else [*others, key]
        self.send({"row": at, "is_chosen": key in self.selected})

    def _press(self, content: Mapping[str, Any]) -> None:
        """Do what a key says to the row at a place."""
        key = str(content.get("key"))
        if key not in self.actions or self._pressed is None:
            raise ConfigError(
                f"key {key[:20]!r} does nothing; use {', '.join(self.actions) or 'none'}"
            )
        _, row = self._meant(content, "press")
        self._pressed(key, row, str(content.get("note") or ""))
        self.send({"pressed": key})

    def _meant(self, content: Mapping[str, Any], what: str) -> tuple[int, str]:
        """Return the place that a message is about, and the key of its row; empty for none.

        Raises:
            ConfigError: If the page shows another row there than the one that is there by now.
        """
        at = max(_whole(content, what), 0)
        page, place = divmod(at, self.page_size)
        rows = self._rows({**content, "page": page})
        key = self._key_of(rows[place]) if place < len(rows) else ""
        if content.get("mark", _mark(key)) != _mark(key):
            self.refresh()
            raise ConfigError("the rows changed meanwhile; look at the row and press again")
        return at, key

    def _rows(self, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        at, size, columns = _whole(asked, "sort", usual=-1), self.page_size, self._source.columns
        if at >= len(columns):
            raise ConfigError(f"sort {at}: there are {len(columns)} columns; count from 0")
        sort = columns[at] if at >= 0 else ""
        offset = max(_whole(asked, "page"), 0) * size
        return self._source.page(offset, size, sort, bool(asked.get("descending")), _filter(asked))

    def _key_of(self, row: Mapping[str, Any]) -> str:
        if callable(self._key):
            return self._key(row)
        return str(row.get(self._key, "")) if self._key else ""


def _whole(asked: Mapping[str, Any], name: str, *, usual: int = 0) -> int:
    value = asked.get(name, usual)
    if type(value) is not int or not -1 <= value < _MOST_ROWS:
        raise ConfigError(f"{name} is {str(value)[:80]!r}; write a whole number from 0 on")
    return value


def _mark(key: str) -> str:
    """Return what a page says to show that it means the row with this key; empty for none."""
    return text_id(key)[:_MARK] if key else ""


def _filter(asked: Mapping[str, Any]) -> str:
    return storable(str(asked.get("filter") or "")[:_MOST_FILTER])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return look.shown(look.cut(f"{value:.4g}" if isinstance(value, float) else value, _MOST_CELL))
