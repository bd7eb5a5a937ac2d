"""Values as text: every field can be set, written text can be parsed again, and nothing else is evaluated."""

import pytest

from ladle.assigners import FCOS, PAA, MaxIoU, SimOTA, TaskAligned
from ladle.criteria import DenseCriterion
from ladle.distillers import FGD, PKD, CrossKD, SoftLabels
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.methods import LAD, Method, Published, Scheduled
from ladle.recipes.parts import ASSIGNER, ASSIGNERS, assigner_of, criterion_of, method_of, text_of_method
from ladle.values import as_text, text_of
from tests.plans import plan_of
from tests.recipes.test_own_parts import NearestCenter

SPEC = detector_spec("paa-tiny", ("a", "b"))


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
            assigner_of(text)
    else:
        assert assigner_of(text) == assigner


@pytest.mark.parametrize("rule", [*ASSIGNERS.values(), PAA(pool=MaxIoU(0.2, 0.2)), FCOS(radius=None)], ids=repr)
def test_what_is_spelled_is_read_again(rule):
    assert assigner_of(text_of(ASSIGNER, rule)) == rule


def test_fields_with_their_default_values_are_not_written():
    assert text_of(ASSIGNER, PAA()) == "PAA"
    assert text_of(ASSIGNER, PAA(pool=MaxIoU(0.2), topk=7)) == "PAA(pool=MaxIoU(positive=0.2), topk=7)"


def test_a_word_needs_no_quotes():
    assert assigner_of("TaskAligned(inside=before)") == TaskAligned(inside="before")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zzz", "no assigner is called that; take one of ATSS"),
        ("pa", "did you mean PAA?"),
        ("PAA(topkk=3)", "PAA has no field 'topkk'; its fields are pool, topk"),
        ("MaxIoU(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)", "MaxIoU has 10 fields only"),
        ("PAA(topk='a')", "topk takes a whole number, found 'a'"),
        ("PAA(topk=a)", "topk takes a whole number, found 'a'"),
        ("PAA(pool=MaxIOO)", "no assigner is called that; did you mean MaxIoU?"),
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
        ("PAA(**{})", "expected a name such as PAA"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text, message):
    with pytest.raises(UserError) as error:
        assigner_of(text)
    assert message in str(error.value)


def test_a_class_of_ones_own_is_written_as_its_module_and_name():
    text = text_of(ASSIGNER, NearestCenter(strides=2.0))
    assert text == "tests.recipes.test_own_parts:NearestCenter(strides=2.0)"
    assert assigner_of(text) == NearestCenter(strides=2.0)
    with pytest.raises(UserError, match="code of your own; resuming imports nothing, so give --assigner"):
        assigner_of(text, imports=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere:Mine", "expected module:Name that can be imported (No module named 'nowhere')"),
        ("ladle.assigners:Mine", "has no attribute 'Mine'"),
        ("tests.recipes.test_own_parts:NearestCenter(strides='far')", "strides takes a number, found 'far'"),
        ("tests.recipes.test_own_parts:NearestCenter(reach=2)", "NearestCenter has no field 'reach'"),
        ("os:system", "does not work"),
    ],
)
def test_what_a_module_does_not_have_is_refused_in_one_sentence(text, message):
    with pytest.raises(UserError) as error:
        assigner_of(text)
    assert message in str(error.value)


# ------------------------------------------------------------------------------------------------- methods and criteria


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("plain", Method()),
        ("lad", Method((Published("lad"),))),
        ("solad", Published("lad") + Published("soft")),
        ("lad+pkd(weight=2)", Published("lad") + Published("pkd", "(weight=2)")),
        ("LAD(until=20.0)+PKD(weight=2.0)", LAD(until=20.0) + PKD(weight=2.0)),
        ("lad+Scheduled(PKD(weight=2.0), until=20.0)", Published("lad") + Scheduled(PKD(2.0), until=20.0)),
        ("Scheduled(PKD(), weight='auto')", Method((Scheduled(PKD(), weight="auto"),))),
        ("fgd+CrossKD(box_loss='iou')", Published("fgd") + CrossKD(box_loss="iou")),
    ],
)
def test_text_becomes_a_method(text, method):
    assert method_of(text) == method


@pytest.mark.parametrize(
    "method",
    [
        Method(),
        LAD(until=20.0) + PKD(weight=2.0),
        LAD("roi", class_power=0.5) + Scheduled(SoftLabels(), weight=0.5, warmup=2.0),
        LAD() + Published("pkd", "(weight=2)"),
    ],
    ids=repr,
)
def test_a_method_that_is_written_is_read_again(method):
    assert method_of(text_of_method(method)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pkd(weigth=2)", "PKD has no field 'weigth'"),
        ("lad+PKD(weight='much')", "weight takes a number, found 'much'"),
        ("PKD(", "expected a name such as lad+PKD"),
        ("lad+FocalLoss(1)", "no method is called 'FocalLoss'"),
    ],
)
def test_a_method_with_a_wrong_field_is_refused_in_one_sentence(text, message):
    with pytest.raises(UserError) as error:
        plan_of(text, SPEC, SPEC)
    assert message in str(error.value)


def test_fields_of_a_word_change_the_published_settings_and_no_others():
    (found,) = plan_of("fgd(foreground=2)", SPEC, SPEC).lessons[0].distillers
    assert found == FGD(foreground=2.0)


def test_a_criterion_is_named_with_fields():
    assert criterion_of("dense-criterion(box_weight=3)") == DenseCriterion(box_weight=3.0)
    with pytest.raises(UserError, match="no criterion is called that"):
        criterion_of("Loss")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("PAA", "PAA"),
        ({"class": "PAA", "topk": 13}, "PAA(topk=13)"),
        ({"class": "PAA", "pool": {"class": "MaxIoU", "positive": 0.2}}, "PAA(pool=MaxIoU(positive=0.2))"),
        (["lad", {"class": "pkd", "weight": 2.0}], "lad+pkd(weight=2.0)"),
        (None, None),
    ],
)
def test_what_yaml_gives_becomes_text(given, text):
    assert as_text(given) == text
