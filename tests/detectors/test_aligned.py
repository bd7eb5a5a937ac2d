"""TOOD's task-aligned head: its sampling is torchvision's, its parts follow the paper, and small networks have none."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from ladle.data.scenes import CLASSES
from ladle.detectors import AlignedStage, DenseSpec, DenseStage, DetectorSpec
from ladle.detectors.aligned import _geometric_mean, _moved, sampled
from ladle.exporting.adapter import reference_output
from ladle.exporting.files import onnx_bytes, trace
from ladle.exporting.module import Exportable, Plan
from ladle.exporting.runtime import onnx_runner
from ladle.families import detector_spec, lessons_of, network_info
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from tests.exporting.small import SIDE, batch_of, needs_onnx
from tests.recipes.test_conformance import loss_of

COCO = [str(number) for number in range(80)]
TINY = detector_spec("tood-tiny", CLASSES, imgsz=SIDE)
SPEC = replace(TINY, head=replace(detector_spec("tood-r18", CLASSES).head, width=16, depth=3))
"""The head of published networks, narrow."""


@pytest.fixture(scope="module")
def detector():
    """A detector with random weights, whose boxes are sampled up to some cells away."""
    torch.manual_seed(0)
    detector = SPEC.build().eval()
    stage = detector.stages[0]
    with torch.no_grad():
        for weight in stage.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
        stage.class_conv.bias.add_(4)
        stage.class_alignment[-1].bias.add_(4)
    return detector


def stage_of(spec, classes=3):
    torch.manual_seed(0)
    return spec.build(classes, (8, 16)).eval()


MAPS = [torch.rand(2, 16, 6, 9, generator=torch.Generator().manual_seed(1)), torch.rand(2, 16, 3, 5)]


@pytest.mark.parametrize("size", [(6, 9), (1, 4), (1, 1)])
def test_sampling_is_torchvisions_deformable_convolution(size):
    generator = torch.Generator().manual_seed(0)
    maps, offsets = torch.randn(2, 4, *size, generator=generator), 3 * torch.randn(2, 8, *size, generator=generator)
    values = [each.clone().requires_grad_() for each in (maps, offsets) for _ in range(2)]
    ours = sampled(values[0], values[2])
    theirs = deform_conv2d(values[1], values[3], torch.ones(4, 1, 1, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for result in (ours, theirs):
        (result * torch.arange(result.numel()).view_as(result)).sum().backward()
    for one, other in (values[:2], values[2:]):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-3)


def test_a_box_whose_edges_would_cross_stays():
    boxes = torch.tensor([[0.0, 40], [0, 0], [20, 60], [20, 20]]).view(1, 4, 1, 2)
    offsets = torch.zeros(1, 8, 1, 2)
    offsets[0, 1, 0, 0] = 1  # the left edge of the first box is taken from the second box: 40, right of its right edge
    assert torch.equal(_moved(boxes, offsets), boxes)
    offsets[0, 5, 0, 0] = 1  # the right one as well
    moved = boxes.clone()
    moved[0, [0, 2], 0, 0] = torch.tensor([40.0, 60.0])
    torch.testing.assert_close(_moved(boxes, offsets), moved)


def test_a_score_is_the_geometric_mean_of_two_probabilities():
    scores, alignment = torch.tensor([[-3.0], [2.0], [0.0]]), torch.tensor([1.0])
    found = _geometric_mean(scores, alignment).sigmoid()
    torch.testing.assert_close(found, (scores.sigmoid() * alignment.sigmoid()).sqrt())
    extreme = _geometric_mean(torch.tensor([200.0, -200.0]), torch.tensor([200.0, -200.0]))
    assert extreme.isfinite().all()
    assert extreme.sigmoid().tolist() == pytest.approx([1, 0])


def test_the_head_predicts_what_the_paper_says():
    """Written again, level by level, with torchvision's deformable convolution."""
    stage = stage_of(SPEC.head)
    with torch.no_grad():
        for weight in stage.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        priors = stage.propose(MAPS, None, None, None)
        found, towers = stage(MAPS, priors)
        assert towers is None
        boxes, scores = [], []
        for level, maps in enumerate(MAPS):
            every = [maps := layer(maps) for layer in stage.tower]
            many = torch.cat(every, 1)
            of_task = []
            for part in (stage.class_features, stage.box_features):
                weights = part.attention(many.mean((2, 3), keepdim=True))
                weighed = [one * weights[:, [number]] for number, one in enumerate(every)]
                of_task.append(F.relu(part.combine[1](F.conv2d(torch.cat(weighed, 1), part.combine[0].weight))))
            task_score = stage.class_conv(of_task[0]).sigmoid()
            scores.append((task_score * stage.class_alignment(many).sigmoid()).sqrt().flatten(2).transpose(1, 2))
            distances = stage.scales[level] * stage.box_conv(of_task[1]).exp()
            down, across = torch.meshgrid(*(torch.arange(side) + 0.5 for side in maps.shape[-2:]), indexing="ij")
            center = torch.stack([across, down])
            plain = torch.cat([center - distances[:, :2], center + distances[:, 2:]], 1)
            moved = deform_conv2d(plain, stage.box_alignment(many), torch.ones(4, 1, 1, 1))
            crossed = (moved[:, [0]] > moved[:, [2]]) | (moved[:, [1]] > moved[:, [3]])
            boxes.append((torch.where(crossed, plain, moved) * (8, 16)[level]).flatten(2).transpose(1, 2))
            assert not torch.equal(moved, plain)
    torch.testing.assert_close(found.logits.sigmoid(), torch.cat(scores, 1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.boxes, torch.cat(boxes, 1), rtol=1e-4, atol=1e-2)


def test_the_published_network_has_the_published_number_of_parameters():
    """32.03 million in mmdetection's TOOD with ResNet-50 and 80 classes."""
    spec = detector_spec("tood-r50", COCO)
    assert (spec.head.aligned, spec.head.depth, spec.head.width) == (True, 6, 256)
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in spec.build().parameters())
    assert parameters == pytest.approx(32.03e6, rel=0.02)


def test_it_starts_as_its_priors_with_rare_objects():
    stage = stage_of(SPEC.head)
    torch.nn.init.zeros_(stage.box_conv.weight)
    priors = stage.propose(MAPS, None, None, None)
    found, _ = stage(MAPS, priors)
    torch.testing.assert_close(found.boxes, priors.boxes.expand(2, -1, -1), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.scores.mean(), torch.tensor(0.01), rtol=0.05, atol=0)


@pytest.mark.slow
def test_every_weight_learns():
    torch.manual_seed(0)
    student = SPEC.build()
    loss_of(TrainingStep(student, lessons_of(SPEC))(batch_of(1))).backward()
    heads = {name: one.grad for name, one in student.named_parameters() if name.startswith("stages.")}
    assert {name for name, gradient in heads.items() if gradient is None} == set()
    still = {name for name, gradient in heads.items() if not gradient.any()}
    assert {name for name in still if not name.endswith("scales")} == set()


def test_small_networks_and_those_with_other_heads_have_the_common_head():
    assert type(TINY.build().stages[0]) is DenseStage
    assert type(SPEC.build().stages[0]) is AlignedStage
    common = DenseSpec(box="distances", quality=False, anchors=SPEC.head.anchors)
    assert detector_spec("tood+dist-r18", CLASSES).head == replace(common, box="distribution")
    assert detector_spec("tood+cop-r18", CLASSES).head == replace(common, objectness="conditional")
    assert not detector_spec("tood+lite-r18", CLASSES).head.aligned
    assert detector_spec("tood+o2o+p2-r18", CLASSES).head.aligned


def test_files_of_before_have_the_common_head():
    text = TINY.to_json().replace(', "aligned": false', "")
    assert "aligned" not in text
    assert DetectorSpec.from_json(text) == TINY
    assert DetectorSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize("field", [{"quality": True}, {"box": "distribution"}, {"distance": "softplus"}, {"depth": 0}])
def test_parts_that_it_has_not_are_refused(field):
    with pytest.raises(ValueError, match="a task-aligned head with parts that only the common one has"):
        replace(SPEC.head, **field)


def test_maps_inside_its_towers_are_refused():
    stage = stage_of(SPEC.head)
    with pytest.raises(ValueError, match="has no towers"):
        stage(MAPS, stage.propose(MAPS, None, None, None), 1)
    assert network_info(SPEC).stage(0).tower_depth == 0
    with pytest.raises(Exception, match="needs a dense head with towers"):
        plan_for("cross", SPEC, SPEC)


def test_it_is_exported_as_one_graph(detector):
    batch = batch_of(2)
    with torch.no_grad():
        expected = reference_output(detector, batch.images, batch.sizes)
        raw = Exportable(detector, Plan(nms=False, side=SIDE))(batch.images, batch.sizes)
    assert expected.scores.std() > 1e-3
    torch.testing.assert_close(raw[0], expected.boxes)
    torch.testing.assert_close(raw[1], expected.scores)


@pytest.mark.slow
@needs_onnx
def test_its_file_answers_as_pytorch(detector):
    plan = Plan(nms=False, side=SIDE, dynamic="sizes", half=True)
    run = onnx_runner(onnx_bytes(trace(Exportable(detector, plan)), plan, {}))
    for batch in (batch_of(3), batch_of(1, seed=1)):
        with torch.no_grad():
            expected = reference_output(detector, batch.images, batch.sizes)
        boxes, scores = run(batch.images, batch.sizes)
        torch.testing.assert_close(boxes, expected.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(scores, expected.scores, rtol=0, atol=1e-4)
