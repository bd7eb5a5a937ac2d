import math

import pytest

from ladle.data.naming import check_distinct, clean_name
from ladle.data.values import flag, number, numbers, printable, shown, whole
from ladle.errors import UserError


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (" 7 ", 7),
        ("7.0", 7),
        ("-3", -3),
        (2**53 + 1, 2**53 + 1),
        *[(value, None) for value in (7.5, True, None, "007", "1_0", "7e0", "", [7], math.nan, math.inf, "9" * 50)],
    ],
)
def test_whole_numbers_and_nothing_else_are_ids(value, read):
    assert whole(value) == read
    assert whole(value) is not True


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (7, 7.0),
        ("7.5", 7.5),
        (" 1e2 ", 100.0),
        ("-inf", -math.inf),
        *[(value, None) for value in ("", "1_0", "1,5", "x", None, True, [1], 10**400)],
    ],
)
def test_numbers_may_be_text(value, read):
    assert number(value) == read


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ([1, "2", 3.5], [1, 2, 3.5]),
        ("[1, 2, 3]", [1, 2, 3]),
        ("1, 2 3", [1, 2, 3]),
        ("1234", None),  # one number, not four
        ({"1": 0, "2": 0}, None),
        ([1, None], None),
        ([1, True], None),
        ("[" * 100_000, None),
        ([], []),
    ],
)
def test_a_list_of_numbers_is_a_list(value, read):
    assert numbers(value) == read


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ((0, 0.0, False, None, "", "0", "false", " No ", "0.0"), False),
        ((1, 1.0, True, "1", "TRUE", "yes", "1.0"), True),
        ((2, -1, 0.5, "2", "maybe", [], {}, math.nan), None),
    ],
)
def test_flags_are_yes_no_or_neither(values, read):
    assert [flag(value) for value in values] == [read] * len(values)


def test_what_does_not_print_is_escaped_and_what_is_long_is_cut():
    assert printable("a\nb\x1b[31m\ud800é") == "a\\nb\\x1b[31m\\ud800é"
    assert len(printable("x" * 5000)) < 500
    assert shown("a\n" + "x" * 5000).startswith("'a\\n")
    assert len(shown("x" * 5000)) < 100


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("night heron", "night heron"),
        ("圆形😀", "圆形😀"),
        ("👩\u200d🚒", "👩\u200d🚒"),
        ("$a_b$", "$a_b$"),
        (" cat ", "cat"),
        ("a\nb", "a b"),
        ("\x07\x1b[31m", "[31m"),
        ("\ud800", "\ufffd"),
        ("\u202egnp", "gnp"),
        ("x" * 5000, "x" * 200),
        ("", "class 3"),
        ("\x00", "class 3"),
        (None, "class 3"),
        (["a"], "class 3"),
        (7, "7"),
        (True, "true"),
    ],
)
def test_names_are_cleaned_and_the_change_is_reported(raw, name):
    cleaned, complaint = clean_name(raw, "class 3")
    assert cleaned == name
    assert (complaint is None) == (raw == name)


def test_classes_of_one_name_are_named(tmp_path):
    check_distinct({1: "dog", 2: "Dog"}, tmp_path)
    with pytest.raises(UserError, match=r"different names, found 'dog' for 1, 3; 'cat' for 2, 4: rename"):
        check_distinct({1: "dog", 2: "cat", 3: "dog", 4: "cat", 5: "owl"}, tmp_path)
