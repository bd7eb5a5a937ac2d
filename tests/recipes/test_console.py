"""Text is printed unchanged: no markup, no emoji by name, no terminal control characters."""

import io
import sys

import pytest

from ladle.recipes.console import say, table, warn


@pytest.fixture
def stream(monkeypatch):
    def replace(name, encoding="utf-8"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, write_through=True))
        return raw

    return replace


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("[bold]x[/bold] [/] :cat:", "[bold]x[/bold] [/] :cat:"),
        ("one\ntwo", "one\ntwo"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\ud800", r"\ud800"),
        ("猫 العربية", "猫 العربية"),
        ("a" * 300, "a" * 300),
    ],
)
def test_a_line_is_printed_as_it_stands(text, printed, capsys):
    say(text)
    assert capsys.readouterr().out == printed + "\n"


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":cat:", "\x1b[31m", "\ud800", "a\nb"])
def test_a_table_holds_names_as_they_stand(name, capsys):
    say(table(f"\n{name}", [{"class": name, name: 1.0}]))
    printed = capsys.readouterr().out
    shown = name.replace("\x1b", r"\x1b").replace("\ud800", r"\ud800")
    heading, cells = (shown, shown.replace("\n", r"\n"))
    assert heading in printed
    assert printed.count(cells) >= 2


@pytest.mark.parametrize(
    ("encoding", "printed"), [("ascii", rb"\u732b"), ("utf-8", "猫".encode()), ("cp1252", rb"\u732b")]
)
def test_what_a_terminal_cannot_show_is_written_out(encoding, printed, stream):
    out, err = stream("stdout", encoding), stream("stderr", encoding)
    say("猫")
    say(table("猫", [{"class": "猫", "AP": float("nan")}]))
    warn("猫")
    assert out.getvalue().count(printed) == 3
    assert err.getvalue().strip() == printed


def test_a_warning_is_one_line_on_standard_error(capsys):
    warn("a\nb")
    assert capsys.readouterr() == ("", "a\\nb\n")


def test_quiet_is_quiet(capsys):
    say("x", quiet=True)
    assert capsys.readouterr().out == ""


def test_where_a_line_is_short_names_give_way_and_numbers_do_not(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    numbers = {f"column {number}": 1000.5 + number for number in range(4)}
    say(table("title", [{"detector": "a-detector-with-a-long-name"} | numbers, {"detector": "b"} | numbers]))
    lines = capsys.readouterr().out.splitlines()
    for start in ("a", "b"):
        (line,) = [one for one in lines if one.strip().startswith(start) and "1000" in one]
        assert line.split()[-4:] == ["1000.5", "1001.5", "1002.5", "1003.5"]


def test_headings_of_numbers_are_never_cut(capsys, monkeypatch):
    """A heading of several words goes on in a second line, and a long one keeps its width."""
    monkeypatch.setenv("COLUMNS", "40")
    names = ("image", "agree %", "objects", "only the first serves", "undistinguished")
    say(table("images", [dict(zip(names, ("IMG_8578_MOV-1.jpg", 33.3, 2, 0, 1), strict=True))]))
    out = capsys.readouterr().out
    assert "…" not in "".join(out.split("IMG")[0])
    assert {"agree", "%", "objects", "first", "serves", "undistinguished"} <= set(out.split())
    assert {"33.3", "2", "0", "1"} <= set(out.split())
