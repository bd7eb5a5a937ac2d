"""Each method has the published settings."""

import re
from dataclasses import replace

import pytest

from ladle.assigners import ATSS, FCOS, OTA, PAA, MaxIoU, RandomSampler, SimOTA
from ladle.criteria import BagCriterion, DenseCriterion
from ladle.distillers import FGD, MGD, PKD, CrossKD, FineGrained, LocalizationDistillation, SoftLabels
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.lessons import Scheduled
from ladle.methods import WORDS
from ladle.recipes.parts import ASSIGNERS
from tests import plans
from tests.families import DENSE, HOME


def spec(family):
    return None if family is None else detector_spec(f"{family}-tiny", ("a", "b"))


def plan_of(method, student, teacher=None, assigner=None):
    return plans.plan_of(method, spec(student), spec(teacher), assigner)


def judges_of(plan):
    return tuple("student" if lesson.judge is None else "teacher" for lesson in plan.lessons)


SOLAD = SoftLabels(class_weight=2.0, quality_weight=10.0, box_weight=1.3, least=0.5, gamma=0.5)
"""Nguyen et al. 2022, released configuration of SoLAD."""


def test_plain_training_is_that_of_the_students_own_paper():
    assert plan_of("plain", "paa").lessons[0].criterion == DenseCriterion(
        box="giou", box_weight=1.3, share="quality", quality="iou", quality_weight=0.5
    )
    assert plan_of("plain", "paa").lessons[0].assigner_at(None) == PAA()
    assert plan_of("plain", "atss").lessons[0].assigner_at(None) == ATSS()
    assert plan_of("plain", "retinanet").lessons[0].assigner_at(None) == MaxIoU(0.5, 0.4)


@pytest.mark.parametrize("family", DENSE)
def test_plain_training_needs_no_teacher(family):
    plan = plan_of("plain", family)
    assert (judges_of(plan)[0], plan.lessons[0].distillers, plan.teaches, plan.skipped) == ("student", (), {}, ())


def test_lad_changes_the_judge_and_shares_the_box_loss_equally():
    plain, lad = plan_of("plain", "paa"), plan_of("lad", "paa", "paa")
    assert judges_of(lad)[0] == "teacher"
    assert lad.lessons[0].assigner_at(None) == plain.lessons[0].assigner_at(None)
    assert lad.lessons[0].criterion == DenseCriterion(share="count")
    assert lad.lessons[0].distillers == ()


def test_solad_is_lad_with_soft_labels():
    lad, solad = plan_of("lad", "paa", "paa"), plan_of("solad", "paa", "paa")
    assert solad.lessons[0].criterion == lad.lessons[0].criterion
    assert judges_of(solad)[0] == "teacher"
    assert solad.lessons[0].distillers == (SOLAD,)


def test_soft_labels_stand_beside_plain_training():
    plain, soft = plan_of("plain", "paa"), plan_of("soft", "paa", "paa")
    assert judges_of(soft)[0] == "student"
    assert soft.lessons[0].criterion == plain.lessons[0].criterion
    assert soft.lessons[0].distillers == (SOLAD,)


def test_soft_labels_alone_use_no_ground_truth_and_have_larger_weights():
    plan = plan_of("soft-only", "paa", "paa")
    assert plan.lessons[0].criterion is None
    assert plan.lessons[0].distillers == (
        SoftLabels(class_weight=10.0, quality_weight=10.0, box_weight=1.3, least=0.1, gamma=0.5),
    )


@pytest.mark.parametrize("method", ["soft", "soft-only", "solad"])
def test_qualities_of_another_family_are_skipped_and_listed(method):
    plan = plan_of(method, "paa", "atss")
    assert plan.lessons[0].distillers[0].quality_weight == 0
    assert len(plan.skipped) == 1
    assert "quality" in plan.skipped[0]
    assert "centerness" in plan.skipped[0]
    assert plan_of(method, "paa", "paa").skipped == ()


def test_lad_skips_nothing_since_it_distills_nothing_else():
    assert plan_of("lad", "paa", "atss").skipped == ()


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("method", ["lad", "solad"])
def test_a_teacher_can_judge_for_every_family(method, family):
    plan = plan_of(method, family, family)
    assert judges_of(plan)[0] == "teacher"
    assert type(plan.lessons[0].assigner_at(None)) is type(plan_of("plain", family).lessons[0].assigner_at(None))
    if family != "paa":
        assert plan.lessons[0].criterion == plan_of("plain", family).lessons[0].criterion


@pytest.mark.parametrize(
    ("family", "rule"),
    [
        ("retinanet", MaxIoU(boxes="predictions", keep_count=True)),
        ("atss", ATSS(boxes="predictions", keep_count=True)),
        ("fcos", FCOS(boxes="predictions")),
        ("ota", OTA()),
    ],
)
def test_the_teachers_boxes_replace_the_priors_of_overlap_assigners(family, rule):
    assert plan_of("lad", family, family).lessons[0].assigner_at(None) == rule


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_every_assigner_is_the_default_of_a_family_and_works_with_others(assigner):
    assert assigner in {*HOME.values(), "PseudoIoU", "Hungarian"}
    for family in DENSE:
        if family == "retinanet" and assigner in ("FCOS", "PseudoIoU"):
            continue
        lesson = plan_of("plain", family, assigner=assigner).lessons[0]
        assert type(lesson.assigner_at(None)).__name__ == assigner
        assert isinstance(lesson.criterion, BagCriterion) == (assigner == "AutoAssign")


@pytest.mark.parametrize("spelling", ["simota", "sim-ota", "SIM_OTA", "SimOTA"])
def test_assigners_are_found_however_they_are_written(spelling):
    assert plan_of("plain", "paa", assigner=spelling).lessons[0].assigner_at(None) == SimOTA()


def test_another_assigner_leaves_the_losses_alone():
    lesson, usual = plan_of("plain", "fcos", assigner="PAA").lessons[0], plan_of("plain", "fcos").lessons[0]
    assert lesson.criterion == usual.criterion


@pytest.mark.parametrize("assigner", ["FCOS", "PseudoIoU"])
def test_assigners_of_points_do_not_support_nine_anchors(assigner):
    with pytest.raises(UserError, match="9 anchors"):
        plan_of("plain", "retinanet", assigner=assigner)


def test_an_assigner_that_is_none_is_refused_with_the_one_meant():
    with pytest.raises(UserError, match="did you mean SimOTA"):
        plan_of("plain", "paa", assigner="SimOTTA")
    with pytest.raises(UserError, match="take one of ATSS, AutoAssign"):
        plan_of("plain", "paa", assigner="zzz")


def test_every_method_is_described():
    assert all(word.meaning for word in WORDS.values())
    one_stage = WORDS.keys() - {"lad-rpn", "lad-roi"}
    assert {judges_of(plan_of(method, "paa+dist", "paa+dist"))[0] for method in one_stage} == {"student", "teacher"}


# ----------------------------------------------------------------------------------------------------------- two stages


@pytest.mark.parametrize("family", ["fasterrcnn", "cascade"])
@pytest.mark.parametrize(
    ("method", "judges"),
    [
        ("plain", ("student", "student")),
        ("lad", ("teacher", "teacher")),
        ("lad-rpn", ("teacher", "student")),
        ("lad-roi", ("student", "teacher")),
        ("soft+pkd", ("student", "student")),
        ("lad+pkd", ("teacher", "teacher")),
    ],
)
def test_a_word_selects_the_stages_the_teacher_judges(family, method, judges):
    plan = plan_of(method, family, family)
    assert judges_of(plan) == (judges[0], *judges[1:] * (3 if family == "cascade" else 1))
    for lesson, judge in zip(plan.lessons, judges_of(plan), strict=True):
        assert lesson.assigner_at(None).boxes == ("predictions" if judge == "teacher" else "priors")
        assert lesson.assigner.boxes == "priors"


def test_stages_have_the_published_thresholds_and_weights():
    rpn, roi = plan_of("plain", "fasterrcnn").lessons
    assert rpn.assigner == MaxIoU(0.7, 0.3, rescued="prior")
    assert rpn.sampler == RandomSampler(256, 0.5)
    assert roi.assigner == MaxIoU(0.5, 0.5, rescue=None)
    cascade = plan_of("plain", "cascade").lessons[1:]
    assert [lesson.assigner_at(None).positive for lesson in cascade] == [0.5, 0.6, 0.7]
    assert [lesson.criterion.weight for lesson in cascade] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("family", ["fasterrcnn", "cascade"])
def test_in_region_heads_class_scores_count_and_what_is_turned_down_is_ignored(family):
    lessons = plan_of("lad", family, family).lessons
    rpn, *roi = [lesson.assigner_at(None) for lesson in lessons]
    assert (rpn.class_power, rpn.ignore_rejected) == (0.0, False)
    assert {(one.class_power, one.ignore_rejected) for one in roi} == {(1.0, True)}
    plain = [lesson.assigner for lesson in lessons]
    assert {(one.boxes, one.ignore_rejected) for one in plain} == {("priors", False)}


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_class_power_applies_to_all_stages(power):
    plan = plans.plan_of("lad", spec("fasterrcnn"), spec("fasterrcnn"), class_power=power)
    assert [lesson.assigner_at(None).class_power for lesson in plan.lessons] == [power, power]


def test_flags_set_how_a_teacher_judges():
    for student in ("retinanet", "fasterrcnn"):
        plan = plans.plan_of("lad", spec(student), spec(student), keep_count=False, class_power=0.5)
        rules = [lesson.assigner_at(None) for lesson in plan.lessons]
        assert {(one.keep_count, one.class_power) for one in rules} == {(False, 0.5)}


@pytest.mark.parametrize(
    ("method", "student", "judging", "message"),
    [
        ("lad", "retinanet", {"class_power": -1.0}, "--class_power -1.0: expected a number of 0 or more"),
        ("lad", "retinanet", {"judge_until": -2.0}, "--judge_until -2.0: expected"),
        ("soft", "retinanet", {"class_power": 1.0}, "the teacher judges nothing"),
        ("pkd", "fasterrcnn", {"judge_until": 3.0}, "the teacher judges nothing"),
        ("lad", "paa", {"class_power": 1.0}, "--class_power 1.0: PAA does not use it"),
        ("lad", "fcos", {"keep_count": False}, "--keep_count False: FCOS always keeps the counts"),
    ],
)
def test_judging_flags_without_effect_are_refused(method, student, judging, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plans.plan_of(method, spec(student), spec(student), **judging)


def test_a_weight_follows_the_gradients_of_the_terms_of_its_part():
    plan = plans.plan_of("lad+soft+pkd", spec("fasterrcnn"), spec("fasterrcnn"), weight="pkd=auto,soft=0.5")
    assert plan.weighed == ("rpn/pkd",)
    assert plan.teaches["rpn/pkd"].endswith("(weight auto)")
    assert plan.lessons[0].distillers[1].weight == "auto"
    every = plans.plan_of("lad+soft+pkd", spec("paa"), spec("paa"), weight="auto")
    assert every.weighed == ("soft_class", "soft_box", "soft_quality", "pkd")
    assert plan_of("fine-grained", "paa", "paa").lessons[0].distillers[0].warmup_steps == 400
    plan = plans.plan_of("fine-grained", spec("paa"), spec("paa"), weight="auto")
    assert plan.lessons[0].distillers[0].warmup_steps == 0, "a weight that follows the gradients would undo it"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"weight": "often"}, "expected a number of 0 or more or auto for pkd, found 'often'"),
        ({"until": "auto"}, "--until auto: expected a number of 0 or more for pkd, found 'auto'"),
        ({"weight": "auto", "warm": "1"}, "--warm 1: the --weight auto of pkd follows the gradients from the start"),
    ],
)
def test_words_in_place_of_numbers_are_refused(flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plans.plan_of("pkd", spec("paa"), spec("paa"), **flags)


def test_features_are_imitated_once_and_soft_labels_in_every_stage_both_have():
    plan = plan_of("lad+soft+pkd", "cascade", "fasterrcnn")
    assert [len(lesson.distillers) for lesson in plan.lessons] == [2, 1, 1, 1]
    assert {name.partition("/")[0] for name in plan.teaches} == {"rpn", "roi_1", "roi_2", "roi_3"}
    assert plan.teaches["rpn/soft_class"].startswith("the score of the only class")
    assert plan.teaches["roi_3/soft_class"].startswith("2 class scores")
    narrow = plan_of("lad-rpn+soft", "fasterrcnn", "atss")
    assert [len(lesson.distillers) for lesson in narrow.lessons] == [1, 0]
    assert "soft in roi: the teacher has one stage" in narrow.skipped


@pytest.mark.parametrize(
    ("method", "student", "teacher", "message"),
    [
        ("lad-rpn", "paa", "paa", "paa-tiny has one stage only; say lad"),
        ("lad", "fasterrcnn", "atss", "take lad-rpn, or a teacher in two stages"),
        ("lad-roi", "cascade", "atss", "cannot judge what cascade-tiny proposes"),
        ("lad+lad-rpn", "fasterrcnn", "fasterrcnn", "lad is given twice"),
        ("ld", "fasterrcnn", "fasterrcnn", "the student says none"),
        ("cross", "fasterrcnn", "fasterrcnn", "head"),
    ],
)
def test_what_stages_cannot_do_is_refused(method, student, teacher, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plan_of(method, student, teacher)


def test_a_proposal_network_takes_other_assigners_but_not_bags():
    assert plan_of("plain", "fasterrcnn", assigner="ATSS").lessons[0].assigner_at(None) == ATSS()
    with pytest.raises(UserError, match="cannot draw a sample"):
        plan_of("plain", "fasterrcnn", assigner="AutoAssign")


# ------------------------------------------------------------------------------------------------- words and their sums


def test_words_add_up_in_any_order():
    one, other = plan_of("lad+ld+pkd", "gfl", "gfl"), plan_of("pkd+lad+ld", "gfl", "gfl")
    assert judges_of(one)[0] == judges_of(other)[0] == "teacher"
    assert one.lessons[0].distillers == (LocalizationDistillation(), PKD(10.0))
    assert set(one.lessons[0].distillers) == set(other.lessons[0].distillers)
    assert set(one.teaches) == {"ld", "ld_ring", "ld_class", "pkd"}
    assert plan_of("solad+pkd", "paa", "paa").lessons[0].distillers == (SOLAD, PKD(10.0))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("osmosis", "no method is called 'osmosis'; take one or more of plain, lad"),
        ("lad+pdk", "no method is called 'pdk'; did you mean pkd?"),
        ("lad+lad", "lad is given twice"),
        ("solad+soft", "soft is given twice"),
        ("plain+pkd", "plain stands alone"),
        ("soft-only+pkd", "soft-only stands alone"),
        ("soft+boxes", "boxes teaches soft_box, which another part teaches too"),
        ("ld+ld-main", "ld-main teaches ld, which another part teaches too"),
        ("", "no method is called ''"),
    ],
)
def test_a_sum_that_makes_no_sense_is_refused(method, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plan_of(method, "gfl", "gfl")


def test_edges_cannot_be_compared_where_there_are_none():
    with pytest.raises(UserError, match="the student says none"):
        plan_of("ld", "paa", "gfl")
    with pytest.raises(UserError, match="the teacher says none"):
        plan_of("ld", "gfl", "paa")
    assert "ld" in plan_of("ld", "paa+dist", "gfl").teaches


def test_a_method_without_effect_is_refused():
    with pytest.raises(UserError, match="quality would teach nothing: soft_quality: the student has no quality branch"):
        plan_of("quality", "gfl", "gfl")
    with pytest.raises(UserError, match="would teach nothing.*means iou, the teacher's centerness"):
        plan_of("quality", "paa", "atss")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gfl", LocalizationDistillation()),
        ("atss+dist", LocalizationDistillation(ring_weight=0.25 * 0.15, images=2)),
        ("fcos+dist", LocalizationDistillation(region="inside", ring_weight=0.25 * 0.25, images=2)),
        (
            "retinanet+dist",
            LocalizationDistillation(
                weight=5, ring_weight=5 * 0.03, class_temperature=8, shared=False, rows="box", images=2
            ),
        ),
    ],
)
def test_localization_distillation_has_the_released_settings_of_its_family(family, settings):
    (found,) = plan_of("ld", family, family).lessons[0].distillers
    assert found == settings


@pytest.mark.parametrize(("backbone", "images"), [("tiny", 3), ("r18", 3), ("r34", 3), ("r50", 2), ("r101", 2)])
def test_gfls_edges_are_weighed_for_as_many_images_as_released_for_the_backbone(backbone, images):
    student = detector_spec(f"gfl-{backbone}", ("a", "b"))
    (found,) = plans.plan_of("ld", student, spec("gfl")).lessons[0].distillers
    assert found == LocalizationDistillation(images=images)


@pytest.mark.parametrize(
    ("student", "teacher", "weight"),
    [
        ("fasterrcnn", "fasterrcnn", 6),
        ("retinanet", "fasterrcnn", 6),
        ("retinanet", "retinanet", 10),
        ("retinanet", "fcos", 10),
    ],
)
def test_pkd_weighs_by_the_stages_of_its_teacher(student, teacher, weight):
    assert plan_of("pkd", student, teacher).lessons[0].distillers == (PKD(weight=weight),)


def test_students_in_two_stages_have_their_own_settings_and_leave_the_pooled_level_out():
    large = detector_spec("fasterrcnn-r18", ("a", "b"))
    assert large.strides == (4, 8, 16, 32, 64)
    fgd, mgd = (plans.plan_of(word, large, large).lessons[0].distillers[0] for word in ("fgd", "mgd"))
    assert fgd == FGD(5e-5, 2.5e-5, 5e-5, 5e-7, temperature=0.5, finest=4)
    assert mgd == MGD(weight=5e-7, erased=0.45, finest=4)
    assert "mgd at stride 64: the 4 finest levels count" in plans.plan_of("mgd", large, large).skipped
    assert plan_of("fgd", "fasterrcnn", "fasterrcnn").lessons[0].distillers[0].finest == 3
    assert plan_of("fgd", "paa", "fasterrcnn").lessons[0].distillers == (FGD(),)


def test_crosskd_has_the_released_settings_of_the_teachers_family():
    assert plan_of("cross", "paa", "paa").lessons[0].distillers == (CrossKD(),)
    teacher = detector_spec("fcos-r18", ("a", "b"))
    (found,) = plans.plan_of("cross", teacher, teacher).lessons[0].distillers
    assert found == CrossKD(0.4, box_weight=0.75, quality_weight=0.0, after=2, box_loss="iou", count="centerness")


def test_fine_grained_imitation_rises_over_the_warmup_steps_of_the_release():
    plan = plan_of("fine-grained", "paa", "paa")
    assert plan.lessons[0].distillers == (Scheduled(FineGrained(), warmup_steps=400),)
    assert plan.teaches["fine_grained"].endswith("(rising over the first 400 steps)")
    assert plans.plan_of("fine-grained", spec("paa"), spec("paa"), warm="0").lessons[0].distillers == (FineGrained(),)


def test_one_softmax_for_a_box_needs_equal_bins():
    student = spec("retinanet+dist")
    teacher = replace(student, head=replace(student.head, bins=9))
    (found,) = plans.plan_of("ld", student, teacher).lessons[0].distillers
    assert found.rows == "edge"


@pytest.mark.parametrize(
    ("family", "edges_weight"),
    [("gfl", 0.25), ("paa+dist", 0.25), ("atss+dist", 0), ("fcos+dist", 0), ("retinanet+dist", 0)],
)
def test_distributions_have_a_loss_of_their_own_where_it_was_published(family, edges_weight):
    criterion = plan_of("plain", family).lessons[0].criterion
    assert criterion.edges_weight == edges_weight
    assert criterion.box == "giou"
    assert plan_of("ld", family, family).lessons[0].criterion == criterion


def test_feature_distillation_alone_needs_only_features():
    assert plan_of("pkd+fgd", "paa", "paa").features_only
    assert not plan_of("pkd+gi", "paa", "paa").features_only
    assert not plan_of("lad+pkd", "paa", "paa").features_only


def test_weights_and_times_are_read_for_all_or_by_word():
    flags = {"weight": "0.5", "warm": "pkd=1", "until": "ld=10,pkd=20"}
    plan = plans.plan_of("lad+ld+pkd", spec("gfl"), spec("gfl"), **flags)
    assert plan.lessons[0].distillers == (
        Scheduled(LocalizationDistillation(), 0.5, 0.0, 10.0),
        Scheduled(PKD(10.0), 0.5, 1.0, 20.0),
    )
    assert plan.teaches["pkd"].endswith("(weight 0.5, rising over 1 epochs, until epoch 20)")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("fgd=1", "'fgd' is no part of this --method; expected one of ld, pkd"),
        ("pkd=much", "expected a number of 0 or more or auto for pkd, found 'much'"),
        ("-1", "found '-1'"),
        ("pkd=1,2", "'2' is no part"),
    ],
)
def test_a_weight_that_is_none_is_refused(weight, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plans.plan_of("lad+ld+pkd", spec("gfl"), spec("gfl"), weight=weight)
