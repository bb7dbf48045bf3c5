"""Tables in narrow and wide places: figures are never cut."""

import sys

import click
import pytest

from workbench.notebook.progress import show_table

COLUMNS = ("name", "calls", "usd", "bytes")
ROWS = [["a" * 30, "1,234,567", "$0.000612", "99,999,999"], ["total", "2", "$1.00", "1"]]


@pytest.fixture
def show(capsys, monkeypatch):
    def look(width):
        monkeypatch.setenv("COLUMNS", str(width or 80))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None)
        show_table(COLUMNS, ROWS, spare=["bytes"])
        return click.unstyle(capsys.readouterr().out)

    return look


def test_a_pipe_gets_everything(show):
    shown = show(None)
    assert all(cell in shown for row in ROWS for cell in row)


@pytest.mark.parametrize("width", [20, 30, 40, 50, 60, 61, 62, 80, 200])
def test_figures_stay_whole_at_any_width(show, width):
    shown = show(width)
    for figure in ("1,234,567", "$0.000612"):
        assert figure in shown
    assert "\u2026" not in shown
    assert ("99,999,999" in shown) == ("bytes" in shown)
    if width >= 40:
        assert max(map(len, shown.splitlines())) <= width


def test_spare_columns_go_only_where_there_is_no_room(show):
    assert "bytes" not in show(60)
    assert "bytes" in show(80)
