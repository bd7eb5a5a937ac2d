"""Localization distillation against mmdetection's head, recorded numbers, and loops."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import ATSS
from ladle.boxes import decode_distances
from ladle.distillers import LocalizationDistillation
from ladle.distillers.regions import within_objects, worthwhile_ring
from ladle.families import GFL
from ladle.losses import expected_bin
from ladle.networks import NetworkInfo, StageInfo
from ladle.testing import example_scene, grid_priors
from ladle.types import Assignment, GroundTruth, Output, Predictions, Pyramid
from tests.distillers import naive
from tests.golden.scenes import Scene, golden

MAIN = LocalizationDistillation(ring_weight=0, class_weight=0)


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_beside_gfl_it_costs_and_pulls_as_the_reference_says(case):
    scene, expected = Scene(case), golden(f"kd__{case}__mmdet_ldhead_fwd_bwd")
    priors, truth = scene.priors(), scene.truth()
    logits, edges = torch.from_numpy(scene.logits).clone().requires_grad_(), scene.edges().requires_grad_()
    boxes = decode_distances(priors.centers, expected_bin(edges) * priors.stride[:, None])
    output = Output(Predictions(logits, boxes, edges=edges), priors, ())
    teacher_out = Output(replace(output.predictions.detach(), edges=scene.edges(sharp=3.0, seed=9)), priors, ())
    plan = ATSS()(output.predictions.detach(), priors, truth)

    terms = GFL.criterion(output, truth, plan)
    losses = {name: term.total / torch.maximum(term.count, term.floor) for name, term in terms.items()}
    # The reference sums over the batch; here the weights are meant for three images.
    losses["ld"] = MAIN(output, teacher_out, truth, plan)["ld"].total / MAIN.images
    sum(losses.values()).backward()
    for ours, theirs in (("class", "loss_cls"), ("box", "loss_bbox"), ("edges", "loss_dfl"), ("ld", "loss_ld")):
        torch.testing.assert_close(losses[ours].detach(), expected[theirs].sum(), rtol=1e-4, atol=0)
    for leaf, name in ((logits, "grad_cls"), (edges, "grad_reg")):
        found, wanted = leaf.grad.flatten(2), expected[name]
        found = found if wanted.ndim == 3 else found.abs().sum(2)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize(("measure", "form"), [("iou", "paper"), ("coverage", "repo")])
def test_the_ring_is_that_of_the_reference(case, measure, form):
    scene, expected = Scene(case), golden(f"vlr__{case}__{form}_float64")["vlr"]
    found = worthwhile_ring(scene.priors(), scene.truth(), measure=measure)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(found > 0, expected > 0)


def sines():
    """The scene of sines and cosines on which the released code's numbers are known."""
    priors = grid_priors(128, 128, (8, 16, 32, 64, 128))
    boxes = torch.tensor([[10.0, 12, 60, 70], [40, 40, 120, 110], [100, 5, 118, 20]])
    truth = GroundTruth.pad([boxes], [torch.arange(3)])
    i = torch.arange(341, dtype=torch.float64)[:, None]
    side, bin_, label = (torch.arange(n, dtype=torch.float64) for n in (4, 17, 3))

    def output(slope, phase, shift, step, start):
        logits = 2 * torch.sin(slope * i + phase * label) + shift
        edges = torch.cos(0.05 * i[..., None] + 0.9 * side[:, None] + step * bin_ + start)
        return Output(Predictions(logits.float()[None], priors.boxes, edges=edges.float()[None]), priors, ())

    student, teacher = output(0.7, 1.3, -2, 0.7, 0), output(0.9, 1.1, -1.5, 0.6, 0.3)
    return student, teacher, truth, ATSS()(student.predictions, priors, truth)


def test_all_three_terms_give_the_numbers_of_the_released_code():
    terms = LocalizationDistillation(images=1, mean_of=None)(*sines())
    assert float(terms["ld"].total) == pytest.approx(0.01345, rel=1e-3)
    assert float(terms["ld_ring"].total) == pytest.approx(0.01748, rel=1e-3)
    assert float(terms["ld_class"].total) == pytest.approx(4.05836, rel=1e-5)
    few = LocalizationDistillation(images=1)(*sines())  # by default as if there were COCO's 80 classes
    assert float(few["ld_class"].total) == pytest.approx(4.05836 * 3 / 80, rel=1e-5)


def test_the_region_of_that_scene_has_the_size_and_the_members_that_were_recorded():
    student, _, truth, plan = sines()
    worth = worthwhile_ring(student.priors, truth)[0]
    members = worth.nonzero().flatten().tolist()
    assert (len(members), float(worth.sum())) == (188, pytest.approx(44.40748, rel=1e-5))
    assert members[:10] == [4, 5, 12, 13, 14, 15, 18, 19, 20, 21]
    assert members[-5:] == [315, 316, 317, 318, 319]
    assert set(members) & set(plan.positive[0].nonzero().flatten().tolist()) == {86, 101}
    assert int((worthwhile_ring(student.priors, truth, measure="iou") > 0).sum()) == 171


@pytest.mark.parametrize("measure", ["iou", "coverage"])
def test_the_ring_is_the_paper_written_out(measure):
    _, priors, truth = example_scene(objects=4, size=(96, 128))
    found = worthwhile_ring(priors, truth, gamma=0.5, measure=measure)
    for image in range(2):
        boxes, levels = priors.boxes[0].tolist(), priors.level.tolist()
        expected = naive.ring(boxes, levels, truth.boxes[image].tolist(), gamma=0.5, measure=measure)
        assert found[image].tolist() == pytest.approx(expected, abs=1e-5)
    assert (found > 0).any()


def test_crowds_padding_and_empty_images_have_no_ring():
    _, priors, truth = example_scene(objects=3)
    assert not worthwhile_ring(priors, replace(truth, crowd=torch.ones_like(truth.crowd))).any()
    assert not worthwhile_ring(priors, replace(truth, valid=torch.zeros_like(truth.valid))).any()
    none = GroundTruth.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    assert not worthwhile_ring(priors, none).any()
    half = priors.valid & (priors.centers[..., 0] < 128)
    assert not worthwhile_ring(replace(priors, valid=half, grids=None), truth)[:, ~half[0]].any()


def scene(bins=17, guide_bins=17):
    generator = torch.Generator().manual_seed(2)
    predicted, priors, truth = example_scene(objects=3, size=(64, 96))
    student, teacher = (
        Output(
            replace(predicted, edges=torch.randn(2, predicted.boxes.shape[1], 4, k, generator=generator)), priors, ()
        )
        for k in (bins, guide_bins)
    )
    other = replace(
        teacher.predictions, logits=predicted.logits + torch.randn(predicted.logits.shape, generator=generator)
    )
    return student, replace(teacher, predictions=other), truth, ATSS()(predicted, priors, truth)


def written_out(distil, student, teacher, truth, plan):
    """The three terms as loops over priors, each a sum over images."""
    student_out, teacher_out, priors = student.predictions, teacher.predictions, student.priors
    trust = student_out.logits.amax(-1).sigmoid()
    worth = worthwhile_ring(priors, truth, distil.gamma)
    if not distil.shared:
        worth = worth * ~plan.positive
    if distil.region == "inside":
        worth = trust * (within_objects(priors, truth) & ~plan.positive)
    main, ring, classes = 0.0, 0.0, 0.0
    for level in range(len(priors.counts)):
        mine = [(b, p) for b, p in plan.positive.nonzero().tolist() if int(priors.level[p]) == level]
        for b, p in mine:
            one = naive.kl(student_out.logits[b, p], teacher_out.logits[b, p], distil.class_temperature)
            classes += distil.class_weight * float(one) / len(mine)
    for b, p in (plan.positive | (worth > 0)).nonzero().tolist():
        if distil.rows == "edge":
            apart = float(naive.kl(student_out.edges[b, p], teacher_out.edges[b, p], distil.temperature).sum())
        else:
            apart = float(
                naive.kl(student_out.edges[b, p].flatten(), teacher_out.edges[b, p].flatten(), distil.temperature)
            )
        main += distil.weight * float(plan.weight[b, p] * trust[b, p]) * apart / 4
        ring += distil.ring_weight * float(worth[b, p]) * apart / 4
    count = student_out.logits.shape[-1]
    classes *= count / (distil.mean_of or count)
    return {"ld": distil.images * main, "ld_ring": distil.images * ring, "ld_class": 2 * classes}


@pytest.mark.parametrize(
    "distil",
    [
        LocalizationDistillation(),
        LocalizationDistillation(mean_of=None),
        LocalizationDistillation(ring_weight=0.0375, images=2),
        LocalizationDistillation(region="inside", images=2),
        LocalizationDistillation(
            weight=5.0, ring_weight=0.15, class_temperature=8.0, shared=False, rows="box", images=2
        ),
    ],
    ids=["gfl", "few-classes", "atss", "fcos", "retinanet"],
)
def test_every_released_setting_is_what_it_says(distil):
    case = scene()
    found = {name: float(term.total) for name, term in distil(*case).items()}
    assert found == pytest.approx(written_out(distil, *case), rel=1e-4)
    assert all(found.values())


def test_the_loss_of_a_batch_does_not_grow_with_it():
    student, teacher, truth, plan = scene()
    double = [
        record.map(lambda tensor: torch.cat([tensor, tensor]) if len(tensor) == 2 else tensor)
        for record in (student.predictions, teacher.predictions, truth, plan)
    ]
    distil = LocalizationDistillation()
    once = distil(student, teacher, truth, plan)
    twice = distil(replace(student, predictions=double[0]), replace(teacher, predictions=double[1]), *double[2:])
    for name, term in once.items():
        torch.testing.assert_close(twice[name].total / twice[name].count, term.total / term.count)


@pytest.mark.parametrize("guide_bins", [9, 25])
def test_a_teacher_with_other_bins_is_said_in_the_students(guide_bins):
    student, teacher, truth, plan = scene(guide_bins=guide_bins)
    found = float(MAIN(student, teacher, truth, plan)["ld"].total)
    student_out, teacher_out = student.predictions.edges, teacher.predictions.edges
    softened = (teacher_out / 10).softmax(-1)
    kept = softened[..., :17]
    if guide_bins > 17:
        kept = torch.cat([softened[..., :16], softened[..., 16:].sum(-1, keepdim=True)], -1)
    else:
        kept = torch.cat([softened, torch.zeros(*softened.shape[:-1], 17 - guide_bins)], -1)
    logs = (student_out / 10).log_softmax(-1)
    apart = 100 * (torch.xlogy(kept, kept) - kept * logs).mean(-1).sum(-1) / 4
    weight = plan.weight * student.predictions.logits.amax(-1).sigmoid()
    assert found == pytest.approx(float(3 * 0.25 * (weight * apart).sum()), rel=1e-4)


def test_a_teacher_without_edges_raises_an_error():
    student, teacher, truth, plan = scene()
    bare = replace(teacher, predictions=replace(teacher.predictions, edges=None))
    with pytest.raises(ValueError, match=r"the teacher says none: take gfl-\*"):
        LocalizationDistillation()(student, bare, truth, plan)


def test_of_one_class_alone_no_class_term_is_made():
    student, teacher, truth, plan = scene()
    one = [
        replace(o, predictions=replace(o.predictions, logits=o.predictions.logits[..., :1])) for o in (student, teacher)
    ]
    assert set(LocalizationDistillation()(*one, truth, plan)) == {"ld", "ld_ring"}


def test_nothing_is_left_where_all_weights_are_nought():
    assert LocalizationDistillation(weight=0, ring_weight=0, class_weight=0)(*scene()) == {}


def test_where_looking_is_not_free_all_is_weighed_and_the_result_is_the_same(monkeypatch):
    case = scene()
    looked = LocalizationDistillation()(*case)
    monkeypatch.setattr("ladle.device._as_gpu", True)
    weighed = LocalizationDistillation()(*case)
    for name, term in looked.items():
        torch.testing.assert_close(term.total, weighed[name].total)


def test_a_soft_plan_weighs_its_positives():
    student, teacher, truth, plan = scene()
    half = Assignment(plan.objects, plan.affinity / 2, plan.background)
    whole = MAIN(student, teacher, truth, plan)["ld"].total
    torch.testing.assert_close(MAIN(student, teacher, truth, half)["ld"].total, whole / 2)


def test_one_softmax_for_a_whole_box_needs_equal_bins():
    student, teacher, truth, plan = scene(guide_bins=9)
    whole = LocalizationDistillation(rows="box")
    with pytest.raises(ValueError, match="the student has 17, the teacher 9: take rows='edge'"):
        whole(student, teacher, truth, plan)
    infos = [NetworkInfo("mine", tuple("abc"), Pyramid((8,), (8,)), (StageInfo(3, bins=bins),)) for bins in (17, 9)]
    with pytest.raises(ValueError, match="the student has 17, the teacher 9: take rows='edge'"):
        whole.summarize(*infos, 0)
