"""Pages stand alone, and no name becomes markup."""

import re
from html.parser import HTMLParser
from math import nan

import pytest

from ladle.visual import html

VOID = ("meta", "img")
NASTY = '<script>alert("x")</script> & \x1b[31m'


class Reader(HTMLParser):
    """Checks that tags are closed in order, and keeps tags and texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(page):
    text = page.read_text(encoding="utf-8")
    asked = re.search(r"//\w|<script|url\(|@import", re.sub(r"base64,[\w+/=]*", "", text))
    assert asked is None, "a page loads nothing"
    return Reader(text)


def test_a_page_holds_what_it_was_given(tmp_path):
    rows = [{"class": "cat", "share": 12.34, "count": 3}, {"class": "dog", "share": nan, "count": 4}]
    parts = [
        html.heading("Head"),
        html.paragraph("Words."),
        html.bullets(["one", "two"]),
        html.section(html.figure(b"\xff\xd8", "what it shows", "its caption"), html.table(rows, "the table")),
    ]
    found = read(html.write_page(tmp_path / "new" / "page.html", "Title", parts))
    assert {"Title", "Head", "Words.", "one", "two", "its caption", "the table", "cat", "12.3", "3", "–"} <= {
        *found.texts
    }
    (image,) = [attrs for tag, attrs in found.tags if tag == "img"]
    assert (image["src"], image["alt"]) == ("data:image/jpeg;base64,/9g=", "what it shows")
    assert [attrs.get("class") for tag, attrs in found.tags if tag == "th"] == [None, "n", "n"]


def test_names_are_never_read_as_markup(tmp_path):
    parts = [
        html.heading(NASTY),
        html.paragraph(NASTY),
        html.bullets([NASTY]),
        html.figure(b"", NASTY, NASTY),
        html.table([{NASTY: NASTY}], NASTY),
        html.links({NASTY: "page.html", "b": '"><b>.html'}, "b"),
        html.code(NASTY),
        html.matrix({NASTY: [0.5]}, [NASTY], NASTY, NASTY),
    ]
    page = html.write_page(tmp_path / "page.html", NASTY, parts)
    found = read(page)
    assert "script" not in {tag for tag, _ in found.tags}
    shown = '<script>alert("x")</script> & \\x1b[31m'
    assert found.texts.count(shown) == 15
    assert [attrs["alt"] for tag, attrs in found.tags if tag == "img"] == [shown]


def test_pages_fit_narrow_screens_and_dark_rooms(tmp_path):
    page = html.write_page(tmp_path / "page.html", "Title", [])
    found = read(page)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in found.tags
    style = page.read_text(encoding="utf-8")
    assert "@media (prefers-color-scheme: dark)" in style
    assert "max-width: 100%" in style


@pytest.mark.parametrize("pages", [{}, {"1 to 3": "show.html"}])
def test_one_page_needs_no_links(pages):
    assert html.links(pages, "1 to 3") == ""


def test_links_lead_to_the_other_pages():
    menu = html.links({"1 to 2": "show.html", "3 to 4": "show-2.html"}, "1 to 2")
    assert menu.count("<a ") == 1
    assert '<a href="show-2.html">3 to 4</a>' in menu


def test_what_is_empty_leaves_nothing():
    assert html.table([]) == html.bullets([]) == ""


def test_a_matrix_shows_whole_percent_and_leaves_zeros_empty(tmp_path):
    part = html.matrix({"cat": [0.0, 0.004, 0.996], "dog": [1.0, 0.0, 0.126]}, ["cat", "dog", "none"], "object")
    found = read(html.write_page(tmp_path / "page.html", "Title", [part]))
    cells = [attrs["style"] for tag, attrs in found.tags if tag == "td"]
    assert cells == [f"--share: {share}" for share in ("0.000", "0.004", "0.996", "1.000", "0.000", "0.126")]
    assert [text for text in found.texts if re.fullmatch(r"<?\d+", text)] == ["<1", "100", "100", "13"]


def test_parts_stand_beside_each_other_unless_all_are_empty():
    assert html.beside([html.Html(""), html.Html("")]) == html.beside([]) == ""
    assert html.beside([html.paragraph("a"), html.Html("")]) == '<div class="beside"><p>a</p></div>'
