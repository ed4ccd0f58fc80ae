"""The page of what a log holds: all of it is shown, as text, on a page that needs nothing else."""

from tests.support.html import Page
from training.data.describe import Bars, Column, Description
from training.evaluation.description import render

SCRIPT = "<script>alert('x')</script>"
FOUND = Description(
    rows=1_000,
    kept=990,
    sequences=40,
    columns=[
        Column("price", "numeric", "holds numbers", 0.25, 3, ["1", "2.5"], Bars([0.5, 0, 1], ("1", "2.5", "9"))),
        Column("", "ignore", SCRIPT, 0.0, 990, [SCRIPT], Bars((), ["each once"])),
    ],
    events=Bars([1.0], ("1", "1", "1")),
    times={"first": "2026-01-01 00:00:00"},
    labels={"anomalous": "7"},
    warnings=[f"e.csv: column '' {SCRIPT}"],
)


def test_a_page_shows_all_of_a_description() -> None:
    html = render(FOUND, "e.csv")
    page = Page(html)
    assert page.headings == ["What e.csv holds", "Warnings", "Columns", "Events of a sequence", "Times", "Labels"]
    assert page.plots == 2
    assert "1,000 rows, of which a fit would read 990, in 40 sequences" in page.text
    for row in (
        ["price", "numericholds numbers", "12.5", "12.59", "25.0%", "3"],
        ['""', f"ignore{SCRIPT}", SCRIPT, "each once", "0.0%", "990"],
        ["first", "2026-01-01 00:00:00"],
        ["anomalous", "7"],
    ):
        assert row in page.rows
    assert f"e.csv: column '' {SCRIPT}" in page.text
    assert '<rect x="2" y="0.000" width=".9" height="1.000"/>' in html
    assert '<rect x="1" ' not in html, "what is not there is not drawn"


def test_no_heading_for_warnings_where_there_are_none() -> None:
    page = Page(render(Description(1, 1, 1, [], Bars((), ()), {}, {}, ()), "e.csv"))
    assert "Warnings" not in page.headings
