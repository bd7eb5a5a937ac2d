"""Class names of any data set are readable on one line, and any two of them are distinct."""

import random

import pytest

from ladle.names import printable, readable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("person", "person"),
        ("$5 and $6", "$5 and $6"),
        (r"$\frac$", r"$\frac$"),
        ("[bold]x[/bold] :cat: 100%", "[bold]x[/bold] :cat: 100%"),
        ("圆形😀 العربية हिन्दी", "圆形😀 العربية हिन्दी"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x07\x1b[31m", r"\x07\x1b[31m"),
        ("\x00", r"\x00"),
        ("\ud800", r"\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028", r"\u2028"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out_and_nothing_else(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"\u732b \xe9"), ("latin-1", r"\u732b é"), ("utf-8", "猫 é")]
)
def test_what_an_encoding_lacks_is_written_out(encoding, shown):
    assert printable("猫 é", encoding) == shown


def test_a_long_text_keeps_its_beginning_and_its_end():
    assert shortened("abcdefghijkl", 12) == "abcdefghijkl"
    assert shortened("abcdefghijklm", 10) == "abcdef…klm"
    assert len(shortened("x" * 1000, 40)) == 40


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["", "  ", "\u200d"], ["class 1", "class 2", "class 3"]),
        (["cat", "cat "], ["cat (class 1)", "cat (class 2)"]),
        (["a\nb", "a b", r"a\nb"], ["a b (class 1)", "a b (class 2)", r"a\nb"]),
        (["e\u0301", "é"], ["é (class 1)", "é (class 2)"]),
        (["class 2", ""], ["class 2 (class 1)", "class 2"]),
        (["class 1", ""], ["class 1", "class 2"]),
        (["a", "a ", "a (class 1)"], ["a (class 1)", "a (class 2)", "a (class 1) (class 3)"]),
        (["x" * 50 + "a", "y"], ["x" * 26 + "…" + "x" * 12 + "a", "y"]),
        (
            ["x" * 30 + "a" + "x" * 30, "x" * 30 + "b" + "x" * 30],
            ["x" * 20 + "…" + "x" * 9 + f" (class {n})" for n in (1, 2)],
        ),
    ],
)
def test_no_two_names_read_alike(names, shown):
    assert readable(names) == shown


def test_names_that_cannot_be_drawn_become_their_place():
    assert readable(["cat", "猫", "狗"], drawable=str.isascii) == ["cat", "class 2", "class 3"]
    assert readable(["猫"], "method", drawable=str.isascii) == ["method 1"]


@pytest.mark.parametrize("seed", range(5))
def test_any_names_stay_apart_on_one_line_of_bounded_length(seed):
    draw = random.Random(seed)
    pieces = [
        "a",
        "b" * 30,
        " ",
        "\n",
        "\ud800",
        "\x1b",
        "猫",
        "class 1",
        "class 2",
        " (class 3)",
        "\u200d",
        "e\u0301",
        "é",
    ]
    names = ["".join(draw.choices(pieces, k=draw.randrange(5))) for _ in range(200)]
    shown = readable(names)
    assert len(set(shown)) == len(names)
    assert all(name.isprintable() or "\u200d" in name for name in shown)
    assert max(map(len, shown)) <= 40 + len(" (class 200)")
