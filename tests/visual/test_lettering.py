"""Every name is written as it is if a font has it, replaced by a number otherwise, and never read as a formula."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import ImageColor

from ladle.types import Detections
from ladle.visual import (
    Panel,
    color,
    draw_comparison,
    draw_confusion,
    draw_detections,
    draw_history,
    draw_precision_recall,
    lettering,
    side_by_side,
    unwritten,
)
from ladle.visual.lettering import Label, labels_of, width_of, write
from ladle.visual.palette import ink_on

from .pixels import near, read

DEJAVU = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
RECALL = np.linspace(0, 1, 101)
ODD = ["$", "$$", r"$\frac$", "_x", "100%^2", "[/]", "猫", "العربية", "\ud800", "a\nb", "\x1b[31m", "", "x" * 300]
"""Names that have broken charts."""


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Fonts are looked for once; here each test has its own."""
    forget()
    yield
    forget()


def forget() -> None:
    lettering._labels.cache_clear()
    lettering._fonts_of.cache_clear()


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any font but those that matplotlib brings, and which can write from the right."""
    monkeypatch.setattr(lettering, "_installed", lambda: iter(()))
    monkeypatch.setattr(lettering, "_can_shape", lambda: True)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("person", "person"),
        ("$5 and $6", "$5 and $6"),
        ("_x", "_x"),
        ("Ελληνικά Русский", "Ελληνικά Русский"),
        ("العربية", "العربية"),
        ("person 😀", "person 😀"),
        ("猫", "class 1"),
        ("हिन्दी", "class 1"),
        ("ไทย", "class 1"),
        ("cat 猫", "class 1"),
        ("\ud800", r"\ud800"),
        ("\x1b[31m", r"\x1b[31m"),
        ("", "class 1"),
    ],
)
def test_a_name_is_itself_where_the_font_has_it(name: str, label: str) -> None:
    assert labels_of([name]) == (Label(label, DEJAVU),)


@pytest.mark.usefixtures("bundled")
def test_names_without_a_font_are_reported() -> None:
    assert unwritten(["cat", "猫", "", "हिन्दी"]) == {"class 2": "猫", "class 4": "हिन्दी"}
    assert unwritten(["cat", "$x$"]) == {}


def test_what_is_written_from_the_right_needs_a_machine_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_installed", lambda: iter(()))
    monkeypatch.setattr(lettering, "_can_shape", lambda: False)
    assert [label.text for label in labels_of(["العربية", "שלום", "dog"])] == ["class 1", "class 2", "dog"]


@pytest.mark.usefixtures("bundled")
def test_bold_names_take_the_regular_font_where_the_bold_one_lacks_a_letter() -> None:
    bold = DEJAVU.with_name("DejaVuSans-Bold.ttf")
    lacking = min(set(lettering._characters(DEJAVU)) - set(lettering._characters(bold)))
    assert labels_of(["cat", chr(lacking)], bold=True) == (Label("cat", bold), Label(chr(lacking), DEJAVU))


def make_font(path: Path, letters: str) -> Path:
    """A font whose glyphs are bars of different heights."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    characters = {ord(c): f"u{ord(c):04X}" for c in letters}
    glyphs = {}
    for number, name in enumerate([".notdef", *characters.values()]):
        pen = TTGlyphPen(None)
        height = 150 * (number % 5 + 1)
        corners = [(100, 0), (100, height), (400, height), (400, 0)]
        pen.moveTo(corners[0])
        for corner in corners[1:]:
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap(characters)
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (500, 100)))
    font.setupHorizontalHeader(ascent=1000, descent=-200)
    font.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=1000, usWinAscent=1000, usWinDescent=200)
    font.setupPost()
    font.save(path)
    return path


LATIN = "".join(map(chr, sorted(lettering._BESIDE)))


def test_a_font_of_the_machine_serves_names_that_the_bundled_ones_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = make_font(tmp_path / "few.ttf", "猫狗")
    bars = make_font(tmp_path / "bars.ttf", LATIN + "猫狗")
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(lettering, "_installed", lambda: iter([broken, tmp_path / "gone.ttf", few, bars]))
    names = ["猫", "狗", "cat", "鳥"]
    assert labels_of(names) == (Label("猫", bars), Label("狗", bars), Label("cat", DEJAVU), Label("class 4", DEJAVU))
    draw_confusion(np.eye(5, dtype=int), names, tmp_path / "a.png")
    drawn = [tag(names, label, tmp_path / "b.png") for label in range(3)]
    assert all((drawn[i] != drawn[j]).sum() > 5 for i in range(3) for j in range(i))


def test_fonts_that_draw_every_character_alike_are_not_asked() -> None:
    assert not [font for font in lettering._installed() if "lastresort" in font.name.lower()]


def tag(names: list[str], label: int, path: Path) -> np.ndarray:
    """Where ink is in the tag of a detection of one class."""
    one = Detections(torch.tensor([[100.0, 100, 500, 500]]), torch.tensor([0.9]), torch.tensor([label]))
    draw_detections(torch.full((3, 640, 640), 90, dtype=torch.uint8), one, names, path)
    shade, ink = (np.array(ImageColor.getrgb(one)) for one in (color(label), ink_on(color(label))))
    pixels = read(path)[60:100, 100:640]
    return np.asarray((np.abs(pixels - ink).sum(-1) < np.abs(pixels - shade).sum(-1)) & (pixels != 90).any(-1))


@pytest.mark.parametrize("names", [["猫", "狗"], ["x" * 300, "x" * 300 + "y"], ["a", "a "], ["\ud800", "\ud801"]])
def test_tags_of_two_classes_never_look_alike(names: list[str], tmp_path: Path) -> None:
    first, second = (tag(names, label, tmp_path / "a.png") for label in (0, 1))
    assert first.any()
    assert (first != second).sum() > 0.02 * first.sum()


def test_tags_stay_apart_on_a_narrow_image(tmp_path: Path) -> None:
    names, box = ["a very long name of the first", "a very long name of the other"], torch.tensor([[5.0, 100, 90, 300]])
    drawn = []
    for label in (0, 1):
        one = Detections(box, torch.tensor([0.9]), torch.tensor([label]))
        draw_detections(torch.zeros(3, 640, 100, dtype=torch.uint8), one, names, tmp_path / "a.png")
        drawn.append(near(read(tmp_path / "a.png"), ink_on(color(label)), reach=60))
    assert (drawn[0] != drawn[1]).sum() > 0.1 * drawn[0].sum()


@pytest.mark.parametrize("name", ["$a$", "$$", r"\$a$", r"\\$a$b", r"$\frac$", "_a", "a_b^c", "{a}", "%"])
def test_matplotlib_writes_a_name_as_it_stands(name: str, tmp_path: Path) -> None:
    figures = Figure(figsize=(3, 1)), Figure(figsize=(3, 1))
    write(figures[0].text(0.1, 0.4, "", fontsize=12), Label(name, DEJAVU))
    figures[1].text(0.1, 0.4, name, fontsize=12, fontfamily="DejaVu Sans", parse_math=False)
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
    ours, plain = (read(tmp_path / f"{number}.png") for number in range(2))
    assert (ours == plain).all()
    assert ours.min() == 0


@pytest.mark.slow
def test_every_drawing_takes_every_name(tmp_path: Path) -> None:
    count = len(ODD)
    draw_precision_recall(RECALL, np.tile(1 - RECALL, (12, 1)), ODD[:12], tmp_path / "curves.png")
    draw_confusion(np.zeros((count + 1, count + 1), dtype=int), ODD, tmp_path / "confusion.png")
    draw_comparison({name: [float(n)] for n, name in enumerate(ODD)}, tmp_path / "comparison.png")
    draw_history([{"epoch": 1} | {f"loss/{name}": 1.0 for name in ODD}], tmp_path / "history.png")
    image, boxes = torch.zeros(3, 64, 640, dtype=torch.uint8), torch.tensor([[1.0, 1, 60, 60]]).repeat(count, 1)
    side_by_side([Panel(name, image, boxes, torch.arange(count)) for name in ODD[:3]], ODD, tmp_path / "side.png")
    assert len(list(tmp_path.iterdir())) == 5


def test_the_legend_leaves_no_class_out(tmp_path: Path) -> None:
    precision = np.stack([1 - RECALL ** (n + 1) for n in range(3)])
    pixels = read(draw_precision_recall(RECALL, precision, ["_a", "_", "$x$"], tmp_path / "a.png"))
    legend = pixels[:, round(0.7 * pixels.shape[1]) :]
    assert all(near(legend, color(label)).sum() > 20 for label in range(3))


def test_long_names_do_not_run_out_of_a_chart(tmp_path: Path) -> None:
    long = ["a class with quite a long name, the first", "a class with quite a long name, the second"]
    charts = [
        draw_precision_recall(RECALL, np.tile(1 - RECALL, (2, 1)), long, tmp_path / "curves.png"),
        draw_confusion(np.eye(3, dtype=int), long, tmp_path / "confusion.png"),
        draw_comparison({name: [1.0] for name in long}, tmp_path / "comparison.png"),
    ]
    for chart in charts:
        edges = read(chart)
        assert min(edges[:, :8].min(), edges[:, -8:].min(), edges[:8].min(), edges[-8:].min()) == 255, chart.name


def test_the_styles_of_the_user_change_nothing(tmp_path: Path) -> None:
    plain = read(draw_comparison({"$a$": [1.0], "_b": [2.0]}, tmp_path / "a.png"))
    mine = {"text.usetex": True, "font.family": "serif", "savefig.transparent": True, "savefig.bbox": "tight"}
    with mpl.rc_context(mine):
        styled = read(draw_comparison({"$a$": [1.0], "_b": [2.0]}, tmp_path / "b.png"))
        assert mpl.rcParams["font.family"] == ["serif"]
    assert plain.shape == styled.shape
    assert (plain == styled).all()


def test_widths_are_those_that_are_drawn() -> None:
    canvas = FigureCanvasAgg(Figure(figsize=(6, 1), dpi=72))
    text = canvas.figure.text(0, 0.4, "", fontsize=20)
    label = Label("a name of some length", DEJAVU)
    write(text, label)
    assert width_of(label, 20) == pytest.approx(text.get_window_extent(canvas.get_renderer()).width, rel=0.03)


@pytest.mark.parametrize("draw", ["chart", "image"])
def test_a_drawing_that_fails_leaves_the_one_before(draw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"

    def make() -> None:
        if draw == "chart":
            draw_comparison({"a": [1.0]}, path)
        else:
            draw_detections(torch.zeros(3, 64, 64, dtype=torch.uint8), NOTHING, ["a"], path)

    def torn(_: object, file: Path, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    make()
    before = path.read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig" if draw == "chart" else "PIL.Image.Image.save", torn)
    with pytest.raises(OSError, match="No space left"):
        make()
    assert path.read_bytes() == before
