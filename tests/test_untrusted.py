"""Untrusted plain data become records, or one sentence; nothing is guessed and nothing grows without bounds."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from ladle.errors import UserError
from ladle.limits import Length, MismatchError, Range, converted, shortened, verify, words
from ladle.untrusted import parse_json, parse_yaml, read_record


@dataclass(frozen=True)
class Circle:
    radius: Annotated[float, Range(0, 10, above=True)]
    filled: bool = False


@dataclass(frozen=True)
class Square:
    side: Annotated[int, Range(1, 64)]
    filled: bool = False


@dataclass(frozen=True)
class Drawing:
    name: Annotated[str, Length(1, 20)]
    shapes: tuple[Circle | Square, ...]
    frame: Square | None = None
    mode: Literal["color", "gray"] = "color"
    mean: tuple[float, float] = (0.0, 0.0)
    scores: dict[str, Annotated[float, Range(finite=False)]] = field(default_factory=dict)
    title: str | tuple[str, ...] = ""

    def __post_init__(self) -> None:
        if self.frame is not None and len(self.shapes) > self.frame.side:
            raise ValueError(f"a frame of {self.frame.side} for {len(self.shapes)} shapes")


PLAIN = {"name": "one", "shapes": [{"radius": 2}, {"side": 3, "filled": True}], "frame": {"side": 9}, "mean": [1, 0.5]}


def test_plain_data_become_the_record_they_describe():
    built = read_record(Drawing, PLAIN | {"scores": {"a": float("nan")}, "title": ["x"]}, "a.json", "write it anew")
    assert built.shapes == (Circle(2.0), Square(3, True))
    assert isinstance(built.shapes[0].radius, float)
    assert (built.name, built.frame, built.mode, built.mean, built.title) == (
        "one",
        Square(9),
        "color",
        (1.0, 0.5),
        ("x",),
    )
    assert built.scores["a"] != built.scores["a"]


def without(key):
    return {name: value for name, value in PLAIN.items() if name != key}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], "expected a mapping, found []"),
        (None, "expected a mapping, found None"),
        (without("name"), "expected the key name, found none"),
        (PLAIN | {"nmae": 1}, "expected the key name, found the key 'nmae'"),
        (PLAIN | {3: 1}, "expected known keys, found the key 3"),
        (PLAIN | {"name": 5}, "expected a text of length 1 to 20 at name, found 5"),
        (PLAIN | {"name": ""}, "of length 1 to 20 at name, found ''"),
        (PLAIN | {"mode": "red"}, "expected one of color, gray at mode, found 'red'"),
        (PLAIN | {"mode": ["color"]}, "expected one of color, gray at mode, found ['color']"),
        (PLAIN | {"mean": [1]}, "expected a list of 2, each a number at mean, found 1 values"),
        (PLAIN | {"mean": [1, float("nan")]}, "expected a number at mean[1], found nan"),
        (PLAIN | {"mean": [True, 1]}, "expected a number at mean[0], found True"),
        (PLAIN | {"mean": [10**400, 1]}, "expected a number at mean[0], found 1000"),
        (PLAIN | {"mean": [10**5000, 1]}, "at mean[0], found a number of very many digits"),
        (PLAIN | {"frame": {"side": 65}}, "expected a whole number from 1 to 64 at frame.side, found 65"),
        (PLAIN | {"frame": {"side": 10**400}}, "expected a whole number from 1 to 64 at frame.side, found 1000"),
        (PLAIN | {"frame": {"side": True}}, "expected a whole number from 1 to 64 at frame.side, found True"),
        (PLAIN | {"frame": {"side": 2.0}}, "expected a whole number from 1 to 64 at frame.side, found 2.0"),
        (PLAIN | {"frame": "none"}, "expected a mapping or nothing at frame, found 'none'"),
        (PLAIN | {"frame": {"side": 1}}, "fit together, found a frame of 1 for 2 shapes"),
        (PLAIN | {"shapes": {"radius": 1}}, "expected a list at shapes, found {'radius': 1}"),
        (PLAIN | {"shapes": [{"radius": 0}]}, "a number above 0 and at most 10 at shapes[0].radius, found 0"),
        (PLAIN | {"shapes": [{"side": 0, "filled": True}]}, "a whole number from 1 to 64 at shapes[0].side, found 0"),
        (PLAIN | {"shapes": [{"radius": 1}] * 100_001}, "expected a list at shapes, found [{"),
        (PLAIN | {"scores": {"a b": "x"}}, "expected a number at scores.['a b'], found 'x'"),
        (PLAIN | {"scores": {5: 1}}, "expected a text at scores.[5], found 5"),
        (PLAIN | {"title": 5}, "expected a text or a list at title, found 5"),
        (PLAIN | {"title": "x" * 10_001}, "expected a text or a list at title, found 'xxx"),
    ],
)
def test_anything_else_is_one_sentence(plain, message):
    with pytest.raises(UserError) as error:
        read_record(Drawing, plain, "a.json", "write it anew")
    sentence = str(error.value)
    assert message in sentence
    assert sentence.startswith("a.json: expected ")
    assert sentence.endswith("; write it anew")
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_what_is_found_is_shown_in_one_line_however_large_or_deep():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shortened(deep) == "[[[...]]]"
    assert shortened("x" * 10**6) == f"'{'x' * 27}...{'x' * 28}'"
    assert shortened("a\nb") == r"'a\nb'"
    assert shortened({str(n): n for n in range(100)}) == "{'0': 0, '1': 1, '10': 10, '11': 11, ...}"


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Annotated[int, Range(1)], "a whole number of at least 1"),
        (Annotated[float, Range(0, 1, below=True)], "a number of at least 0 and below 1"),
        (Annotated[float, Range(most=3)] | None, "a number at most 3 or nothing"),
        (bool, "true or false"),
        (tuple[str, ...], "a list"),
    ],
)
def test_a_hint_is_described_in_words(hint, message):
    assert words(hint) == message


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -0.1, 1.0])
def test_a_range_without_its_end_refuses_the_end_and_all_beyond(value):
    with pytest.raises(MismatchError):
        converted(Annotated[float, Range(0, 1, below=True)], value)
    assert converted(Annotated[float, Range(0, 1, below=True)], 0) == 0


def test_a_record_made_in_python_is_checked_by_the_same_hints():
    verify(Drawing("one", (Square(3),)), lambda name: f"--{name}")
    with pytest.raises(UserError, match=r"^--shapes 0: expected a whole number from 1 to 64$"):
        verify(Drawing("one", (Square(0),)), lambda name: f"--{name}")
    with pytest.raises(UserError, match=r"^--mode 3: expected one of color, gray$"):
        verify(Drawing("one", (), mode=3), lambda name: f"--{name}")


def test_yaml_is_read_as_plain_values():
    numbers = "a: 1e-3\nb: .5\nc: 12\nj: 1.0e-05\nk: [1, {l: -3.}]\nm: -.inf\n"
    others = "d: 2020-01-01\ne: ~\nf: yes\ng: '1'\nh: 010\ni: 1:30\n"
    assert parse_yaml(numbers + others, "a.yaml") == {
        "a": 0.001,
        "b": 0.5,
        "c": 12,
        "d": "2020-01-01",
        "e": None,
        "f": True,
        "g": "1",
        "h": "010",
        "i": "1:30",
        "j": 1e-5,
        "k": [1, {"l": -3.0}],
        "m": float("-inf"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "found an alias, which may stand for anything"),
        ("a: 1\nb: 2\na: 3", "found a key that stands there more than once"),
        ("a: !!python/object:os.system {}", "found the tag tag:yaml.org,2002:python/object:os.system"),
        ("a: !!int x", "found the tag tag:yaml.org,2002:int"),
        ("[" * 5000, "found more than 50 levels of lists and mappings"),
        ("- " * 5000, "found more than 50 levels of lists and mappings"),
        ("x" * 32_001, "of at most 32000 bytes, found 32001"),
        ("a: 1\n---\nb: 1", "none that can be read"),
        ("{[1]: 2}", "none that can be read"),
        ("a: =", "none that can be read"),
        ("a: " + "9" * 5000, "none that can be read"),
        ("a: \x07", "none that can be read"),
        ("\ta: 1", "none that can be read"),
        (b"a: \xff", "expected YAML in UTF-8"),
    ],
)
def test_yaml_with_more_than_plain_values_is_one_sentence(text, message):
    with pytest.raises(UserError, match=r"^a\.yaml: expected ") as error:
        parse_yaml(text, "a.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "expected plain JSON, found brackets nested too deeply"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands there more than once"),
        ("9" * 5000, "none that can be read"),
        ('{"a": 1', "none that can be read"),
        ("", "none that can be read"),
        (b"\xff", "expected JSON in UTF-8"),
        (" " * 4_000_001, "of at most 4000000 bytes, found 4000001"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(text, message):
    with pytest.raises(UserError, match=r"^a\.json: expected ") as error:
        parse_json(text, "a.json")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_json_may_begin_with_a_byte_order_mark():
    assert parse_json(b'\xef\xbb\xbf{"a": [1, null]}', "a.json") == {"a": [1, None]}
