"""Every example runs, in small, and shows what it says it shows."""

import runpy
from pathlib import Path

import pytest

from ladle.families import detector_spec, lessons_of
from ladle.methods import plan_for
from ladle.testing import ASSIGNER_LAWS, a_crowded_image_fits_in_a_gibibyte, it_compiles_into_one_graph

EXAMPLES = Path(__file__).parents[2] / "examples"
LAWS = [law for law in ASSIGNER_LAWS if law not in (it_compiles_into_one_graph, a_crowded_image_fits_in_a_gibibyte)]
"""All but the one that cannot be tried under the shape checks of the tests, and the one that takes seconds."""


def example(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.slow
def test_an_assigner_of_ones_own_obeys_the_laws_and_teaches(capsys):
    losses = example("own_assigner")["main"](epochs=2, images=16, laws=LAWS)
    assert capsys.readouterr().out.count("obeys:") == len(LAWS) > 10
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_an_own_loop_learns_and_finds(capsys):
    losses = example("own_loop")["main"](epochs=2, images=16)
    assert losses[1] < losses[0]
    assert capsys.readouterr().out.count("objects found") == 2


@pytest.mark.slow
def test_foreign_data_is_read_as_it_was_written(capsys):
    ap = example("foreign_data")["main"](epochs=1, photos=8)
    said = capsys.readouterr().out
    assert "as a source: images (4, 3, 64, 64)" in said
    assert "train: 8 pictures, 0 of them without objects, 8 objects" in said
    assert "no fatal defects" in said
    assert 0 <= ap <= 1


def test_two_stages_are_taught_in_both(capsys):
    told = example("two_stages")["main"](epochs=1, images=4)
    assert list(told[0]) == ["rpn/class", "rpn/box", "roi/class", "roi/box"]
    assert all(value > 0 for value in told[0].values())
    assert capsys.readouterr().out.count("teacher:") == 1


@pytest.mark.parametrize("judge", ["student", "teacher"])
def test_the_lessons_of_the_two_stages_are_the_published_ones(judge):
    spec = detector_spec("fasterrcnn-tiny", ("object", "other"))
    published = lessons_of(spec) if judge == "student" else plan_for("lad", spec, spec).lessons
    shown = example("two_stages")["lessons"](judge)
    for one, other in zip(shown, published, strict=True):
        assert (one.assigner, one.criterion, one.sampler) == (other.assigner, other.criterion, other.sampler)


def test_every_example_is_linked_and_tried():
    index = (EXAMPLES.parent / "docs" / "index.md").read_text(encoding="utf-8")
    tried = Path(__file__).read_text(encoding="utf-8")
    names = [file.stem for file in EXAMPLES.glob("*.py")]
    assert len(names) >= 4
    for name in names:
        assert f"(../examples/{name}.py)" in index
        assert f'example("{name}")' in tried
