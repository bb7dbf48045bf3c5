"""What notebooks show: records as tables, and the report's figures."""

from workbench.notebook.show import figure, table
from workbench.report.figures import bars
from workbench.report.tables import dollars


def test_records_become_rows_of_readable_numbers():
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    page = table([{"a_name": "x", "n": 12345}, {"a_name": "y", "rate": interval}]).to_html()
    for shown in (">a name<", ">12,345<", ">0.500 [0.250, 0.750]<", ">–<"):
        assert shown in page


def test_one_mapping_stands_upright():
    page = table({"cpu_s": 3.0, "note": "text"}).to_html()
    assert page.index(">cpu s<") < page.index(">3<") < page.index(">note<") < page.index(">text<")


def test_hostile_texts_are_shown_and_not_obeyed():
    page = table([{"<b>": "<script>alert(1)</script> $x$"}]).to_html()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "mathjax_ignore" in page


def test_figures_keep_their_spec_under_a_title():
    shown = figure(bars({"train": 2.0, "pairs": 1.0}, show=dollars), title="Spend")
    assert shown.layout.title.text == "Spend"
    assert list(shown.data[0].x) == [2.0, 1.0]
