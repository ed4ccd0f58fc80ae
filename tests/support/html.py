"""A page as a browser reads it, for tests of what it says."""

from html.parser import HTMLParser

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
FETCHING = {"link", "img", "iframe", "object", "embed", "base"}
ADDRESSES = {"src", "srcset", "href", "xlink:href", "data", "action", "poster"}


class Page(HTMLParser):
    """What a page says; reading it fails where a tag is left open, or where something outside would be fetched.

    Attributes:
        headings: texts of h1, h2 and h3.
        rows: texts of the cells of each table row.
        text: all of the body, plots left out, with single spaces.
        plots: how many there are.
        scripts: texts of those within the page, as many as the test expects.
    """

    def __init__(self, html: str, scripts: int = 0) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.plots = 0
        self.scripts: list[str] = []
        self._open: list[str] = []
        self._said: list[str] = []
        assert html.startswith("<!doctype html>\n")
        self.feed(html)
        self.close()
        assert not self._open, f"left open: {self._open}"
        assert len(self.scripts) == scripts
        self.text = " ".join("".join(self._said).split())
        self.headings = [" ".join(h.split()) for h in self.headings]
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "svg":
            self.plots += 1
        elif tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> at line {self.getpos()[0]} closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            assert "@import" not in data
            assert "url(" not in data
        elif "script" in self._open:
            self.scripts[-1] += data
        elif "body" in self._open and "svg" not in self._open:
            self._said.append(data)
            if {"h1", "h2", "h3"} & set(self._open):
                self.headings[-1] += data
            elif {"td", "th"} & set(self._open):
                self.rows[-1][-1] += data

    def _check(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in FETCHING
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has {name}"
            assert "url(" not in (value or "").replace("url(#", "")
            if name in ADDRESSES:
                inside = (value or "").startswith(("#", "data:image/png;base64,"))
                assert inside, f"{tag} fetches {value}"
            elif not name.startswith("xmlns"):
                assert "//" not in (value or ""), f"{tag} names {value}"
