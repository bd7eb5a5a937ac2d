"""Assigners as text: every field can be set, what is written can be read again, and nothing else is evaluated."""

import pytest

from ladle.assigners import FCOS, PAA, MaxIoU, SimOTA
from ladle.errors import UserError
from ladle.recipes.assigners import ASSIGNERS, assigner_named, text_of
from tests.recipes.test_own_parts import NearestCenter


@pytest.mark.parametrize(
    ("text", "assigner"),
    [
        ("paa", PAA()),
        ("max-iou", MaxIoU()),
        ("max_iou", MaxIoU()),
        ("PAA(topk=5)", PAA(topk=5)),
        ("MaxIoU(0.6, 0.4)", MaxIoU(0.6, 0.4)),
        ("PAA(5 * 1)", None),
        ("PAA(pool=MaxIoU(positive=0.2, negative=0.2), topk=7)", PAA(pool=MaxIoU(0.2, 0.2), topk=7)),
        ("FCOS(radius=None, ranges=(32, 64, 128, 256))", FCOS(radius=None, ranges=(32.0, 64.0, 128.0, 256.0))),
        ("SimOTA(radius=2.5, candidates='center or box')", SimOTA(radius=2.5, candidates="center or box")),
    ],
)
def test_text_becomes_an_assigner(text, assigner):
    if assigner is None:
        with pytest.raises(UserError, match="expected a name such as PAA"):
            assigner_named(text)
    else:
        assert assigner_named(text) == assigner


@pytest.mark.parametrize("rule", [*ASSIGNERS.values(), PAA(pool=MaxIoU(0.2, 0.2)), FCOS(radius=None)], ids=repr)
def test_what_is_spelled_is_read_again(rule):
    assert assigner_named(text_of(rule)) == rule


def test_fields_that_are_as_usual_are_not_expression():
    assert text_of(PAA()) == "PAA"
    assert text_of(PAA(pool=MaxIoU(0.2), topk=7)) == "PAA(pool=MaxIoU(positive=0.2), topk=7)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zzz", "no assigner is called that; take one of ATSS"),
        ("pa", "did you mean PAA?"),
        ("PAA(topkk=3)", "PAA has no field 'topkk'; its fields are pool, topk"),
        ("MaxIoU(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)", "MaxIoU has 9 fields only"),
        ("PAA(topk='a')", "topk takes a whole number, found 'a'"),
        ("PAA(topk=1e400)", "topk takes a whole number, found inf"),
        ("TaskAligned(topk=-1)", "topk takes a number of 0 or more, found -1"),
        ("ATSS(topk=0)", "does not work"),
        ("MaxIoU(positive=0.9, rescue=None)", "no prior learns any"),
        ("FCOS(ranges='far')", "ranges takes"),
        ("__import__('os')", "no assigner is called that"),
        ("PAA.__class__", "expected a name such as PAA"),
        ("PAA(", "expected a name such as PAA"),
        ("(" * 500, "expected a name such as PAA"),
        ("", "expected a name such as PAA"),
        ("3", "expected a name such as PAA"),
        ("PAA(**{})", "no field"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text, said):
    with pytest.raises(UserError) as error:
        assigner_named(text)
    assert said in str(error.value)


def test_one_of_ones_own_cannot_be_expression():
    with pytest.raises(UserError, match="NearestCenter is not in ladle.assigners"):
        text_of(NearestCenter())
