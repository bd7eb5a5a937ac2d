"""Cross-head distillation against its release, written out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ladle.boxes import giou, iou
from ladle.detectors import Anchors, DenseSpec
from ladle.distillers import CrossKD
from ladle.testing import DISTILLER_LAWS, example_output
from ladle.types import Output, Pyramid


class Net:
    """A head over a pyramid, and nothing else of a detector."""

    def __init__(self, spec, seed=0):
        torch.manual_seed(seed)
        self.head = spec.build(5, (8, 16, 32)).requires_grad_(False)
        self.pyramid = Pyramid((spec.width,) * 3, (8, 16, 32))
        # Large enough weights that the parts of a head matter.
        for parameter in self.head.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)


def spec(box="distribution", width=8, depth=2, **kwargs):
    return DenseSpec(width, depth, Anchors(), box=box, bins=9, **kwargs)


def scene(net, depth, seed):
    """The head's predictions for random maps, with its towers after ``depth`` convolutions."""
    output, truth, plan = example_output(seed)
    generator = torch.Generator().manual_seed(seed)
    width = net.pyramid.channels[0]
    maps = [torch.randn(2, width, *m.shape[-2:], generator=generator) for m in output.features]
    predictions, towers = net.head(maps, output.priors, depth)
    return Output(predictions, output.priors, tuple(maps), None, towers), truth, plan


def standardized(student_map, teacher_map):
    """A map of the student with mean and standard deviation of the teacher's, channel by channel."""
    flat, other = student_map.transpose(0, 1).flatten(1), teacher_map.transpose(0, 1).flatten(1)
    moved = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-6)
    moved = moved * other.std(1, keepdim=True) + other.mean(1, keepdim=True)
    return moved.view(student_map.shape[1], student_map.shape[0], *student_map.shape[2:]).transpose(0, 1)


RETINANET_AND_ATSS = CrossKD()
FCOS = CrossKD(class_weight=0.4, box_weight=0.75, box_loss="iou", count="centerness")


@pytest.mark.parametrize(
    ("box", "distil"),
    [("distribution", CrossKD()), ("deltas", RETINANET_AND_ATSS), ("distances", FCOS)],
    ids=["gfl", "retinanet, atss", "fcos"],
)
def test_it_is_its_release_written_out(box, distil):
    teacher, student = Net(spec(box)), Net(spec(box), seed=1)
    (student_out, truth, plan), (teacher_out, _, _) = scene(student, 1, 0), scene(teacher, 1, 1)
    teacher_out = replace(teacher_out, priors=student_out.priors)
    found = distil.build(student, teacher)(student_out, teacher_out, truth, plan)

    head, logits, predictions, quality = teacher.head, [], [], []
    for level, (mine, theirs) in enumerate(zip(student_out.towers, teacher_out.towers)):
        of_class, of_box = (standardized(a, b) for a, b in zip(mine, theirs))
        of_class = head.class_tower[3:](of_class.relu())
        of_box = head.box_tower[3:](of_box.relu())
        rows = [
            conv(x).permute(0, 2, 3, 1).flatten(1, 2)
            for conv, x in ((head.class_conv, of_class), (head.box_conv, of_box), (head.quality_conv, of_box))
        ]
        logits.append(rows[0])
        predictions.append(rows[1] * head.scales[level])
        quality.append(rows[2])
    logits, predictions, quality = torch.cat(logits, 1), torch.cat(predictions, 1), torch.cat(quality, 1)[..., 0]

    target, valid = teacher_out.predictions.logits.sigmoid(), student_out.priors.valid
    costs = (logits.sigmoid() - target).abs() * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = distil.class_weight * (costs.sum(-1) * valid).sum()
    torch.testing.assert_close(found["cross_class"].total, weight, rtol=1e-4, atol=0)
    count = plan.positive.sum().float() if distil is not FCOS else central(student_out.priors, truth, plan)
    torch.testing.assert_close(found["cross_class"].count, count, rtol=1e-5, atol=0)

    sure = target.amax(-1) * valid
    if box == "distribution":
        edges, theirs = predictions.unflatten(-1, (4, 9)), teacher_out.predictions.edges.softmax(-1)
        apart = 4 * F.kl_div(edges.log_softmax(-1), theirs, reduction="none").sum(-1).sum(-1) / 4
    else:
        boxes, _ = head._decode(predictions, student_out.priors)
        theirs = teacher_out.predictions.boxes
        apart = 1 - giou(boxes, theirs) if distil is not FCOS else -0.75 * iou(boxes, theirs).clamp(min=1e-6).log()
    torch.testing.assert_close(found["cross_box"].total, (sure * apart).sum(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found["cross_box"].count, sure.sum() if box == "distribution" else count)
    costs = F.binary_cross_entropy_with_logits(quality, teacher_out.predictions.quality.sigmoid(), reduction="none")
    torch.testing.assert_close(found["cross_quality"].total, costs[plan.positive].sum(), rtol=1e-4, atol=0)
    assert found["cross_quality"].count == plan.positive.sum()


def central(priors, truth, plan):
    """The sum of the centerness of the positives."""
    total = 0.0
    for row, prior in plan.positive.nonzero().tolist():
        x, y = priors.centers[0, prior].double()
        x1, y1, x2, y2 = truth.boxes[row, plan.index[row, prior]].double()
        left, top, right, bottom = (max(float(side), 0.0) for side in (x - x1, y - y1, x2 - x, y2 - y))
        total += (min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)) ** 0.5
    return torch.tensor(total)


@pytest.mark.parametrize("box", ["distribution", "deltas", "distances"])
@pytest.mark.parametrize("law", DISTILLER_LAWS, ids=lambda law: law.__name__)
def test_it_obeys_the_laws_of_distillers(law, box):
    net = Net(spec(box))
    smooth = {"class_weight": 0.0, "box_weight": 0.0} if law.__name__ == "agreement_is_the_minimum" else {}
    law(CrossKD(**smooth).build(net, net), lambda seed: scene(net, 1, seed))


def test_classes_and_boxes_that_agree_cost_nothing_though_there_the_losses_have_a_kink():
    """Quality focal loss with exponent 1 and GIoU rise to both sides of agreement like an absolute value."""
    net = Net(spec("deltas"))
    student_out, truth, plan = scene(net, 1, 0)
    distil = CrossKD(quality_weight=0.0).build(net, net)
    agreed = distil(student_out, student_out, truth, plan)
    shaken = replace(
        student_out,
        towers=tuple((a + 0.3 * torch.randn_like(a), b + 0.3 * torch.randn_like(b)) for a, b in student_out.towers),
    )
    apart = distil(shaken, student_out, truth, plan)
    for name in ("cross_class", "cross_box"):
        assert float(agreed[name].total) < 1e-2 * float(apart[name].total)


def test_the_gradient_goes_through_the_teachers_head_and_stays_out_of_it():
    teacher, student = Net(spec()), Net(spec(), seed=1)
    (student_out, truth, plan), (teacher_out, _, _) = scene(student, 1, 0), scene(teacher, 1, 1)
    maps = tuple((a.clone().requires_grad_(), b.clone().requires_grad_()) for a, b in student_out.towers)
    distil = CrossKD().build(student, teacher)
    terms = distil(replace(student_out, towers=maps), replace(teacher_out, priors=student_out.priors), truth, plan)
    sum(term.total for term in terms.values()).backward()
    assert all(one.grad.abs().sum() > 0 for pair in maps for one in pair)
    assert all(parameter.grad is None for parameter in teacher.head.parameters())
    assert list(distil.parameters()) == []
    assert distil.state_dict() == {}


def test_a_teacher_of_another_width_and_depth_is_reached():
    teacher, student = Net(spec(width=12, depth=3)), Net(spec(depth=1), seed=1)
    distil = CrossKD().build(student, teacher)
    assert distil.tower_depths == (1, 2)
    (student_out, truth, plan), (teacher_out, _, _) = scene(student, 1, 0), scene(teacher, 2, 1)
    terms = distil(student_out, replace(teacher_out, priors=student_out.priors), truth, plan)
    sum(term.total for term in terms.values()).backward()
    assert [tuple(p.shape[:2]) for p in distil.parameters() if p.ndim > 1] == [(12, 8), (12, 8)]
    assert all(parameter.grad is not None for parameter in distil.parameters())


def test_where_it_crosses_can_be_chosen_as_far_as_the_teacher_goes():
    assert CrossKD().depths(4, 4) == (3, 3)
    assert CrossKD(after=2).depths(4, 4) == (2, 2)
    assert CrossKD().depths(1, 1) == (0, 0)
    with pytest.raises(ValueError, match="have 4 convolutions, so none can be entered after 5"):
        CrossKD(after=5).depths(4, 4)


def test_missing_towers_and_heads_raise_an_error():
    net = Net(spec())
    student_out, truth, plan = scene(net, 1, 0)
    with pytest.raises(ValueError, match="outputs with tower_depth"):
        CrossKD().build(net, net)(replace(student_out, towers=None), student_out, truth, plan)
    net.head = None
    with pytest.raises(ValueError, match="needs a dense head"):
        CrossKD().build(net, net)
