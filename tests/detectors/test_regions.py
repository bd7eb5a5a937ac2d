"""Two stages beside torchvision's own Faster R-CNN: the same boxes, the same plans, the same losses and gradients."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, boxes

from ladle.assigners import RandomSampler
from ladle.boxes import pairwise_iou
from ladle.detectors.proposals import best_proposals
from ladle.device import as_on_a_gpu
from ladle.errors import UserError
from ladle.families import detector_spec, from_torchvision, lessons_of
from ladle.objectives import TrainingStep
from ladle.types import Assignment, Batch, GroundTruth, Output, Predictions

CLASSES = ("a", "b", "c", "d", "e")
SIZE = (128, 192)
SIZES = torch.tensor([SIZE, SIZE])
TRUTH = GroundTruth.pad(
    [torch.tensor([[8.0, 8, 60, 90], [70, 10, 150, 60]]), torch.tensor([[5.0, 5, 60, 45], [20, 60, 140, 120]])],
    [torch.tensor([0, 2]), torch.tensor([1, 4])],
)


def random_images():
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand(2, 3, SIZE[0] // 16, SIZE[1] // 16, generator=generator)
    return F.interpolate(rough, size=SIZE, mode="bicubic").clamp(0, 1)


def batch():
    return Batch(random_images(), TRUTH, SIZES, SIZES, (0, 1))


def build(make):
    """A model with random weights whose maps are of a sound size, and which is sure of some things."""
    torch.manual_seed(0)
    model = make(
        weights=None,
        weights_backbone=None,
        num_classes=6,
        min_size=SIZE[0],
        max_size=SIZE[1],
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=16,
        rpn_pre_nms_top_n_test=30,
    )
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        maps = model.train().backbone((random_images() - 0.45) / 0.225)
        for block, level in zip(model.backbone.fpn.layer_blocks, maps.values()):
            block[0].weight.div_(level.std())
        if isinstance(model.roi_heads.box_head, nn.Sequential):
            model.roi_heads.box_head(torch.randn(64, 256, 7, 7))
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("cls_score", "bbox_pred", "cls_logits")):
                parameter.mul_(5)
    return model.eval()


@pytest.fixture(
    scope="module",
    params=[fasterrcnn_resnet50_fpn, pytest.param(fasterrcnn_resnet50_fpn_v2, marks=pytest.mark.slow)],
    ids=lambda m: m.__name__,
)
def pair(request):
    """torchvision's model and ours of the same weights, with the layout of memory that makes sums alike."""
    model = build(request.param)
    detector = from_torchvision(model, CLASSES).eval().to(memory_format=torch.contiguous_format)
    region = detector.stages[1]
    fewer = replace(region.spec.proposals, candidates=(300, 30), keep=(16, 150))  # all that five levels of 30 can have
    region.spec = replace(region.spec, proposals=fewer)
    return model, detector


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """torchvision's suppression in double precision, as ours: offsets cost float32 what decides near a threshold."""
    suppress = boxes.batched_nms
    monkeypatch.setattr(boxes, "batched_nms", lambda b, s, group, least: suppress(b.double(), s.double(), group, least))


@torch.no_grad()
@pytest.mark.slow
def test_torchvisions_weights_find_the_same_boxes(pair):
    model, detector = pair
    for theirs, ours in zip(model(list(random_images())), detector.detect(batch())):
        assert len(ours.boxes) == len(theirs["boxes"]) > 20
        torch.testing.assert_close(ours.boxes, theirs["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.scores, theirs["scores"], rtol=0, atol=1e-5)
        assert torch.equal(ours.labels, theirs["labels"] - 1)


@torch.no_grad()
@pytest.mark.slow
def test_proposals_are_torchvisions(pair):
    model, detector = pair
    images, _ = model.transform(list(random_images()))
    theirs, _ = model.rpn(images, model.backbone(images.tensors))
    priors = detector(random_images(), SIZES)[1].priors
    for row, expected in enumerate(theirs):
        found = priors.boxes[row, priors.valid[row]]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


class Lots:
    """Our way of drawing samples, as torchvision's models call it."""

    def __init__(self, sample, generator):
        self.sample, self.generator = sample, generator

    def __call__(self, labels):
        labels = torch.stack(labels)
        plan = Assignment.hard(torch.zeros_like(labels, dtype=torch.long), labels >= 1, labels == 0)
        drawn = self.sample(plan, self.generator)
        return list(drawn.positive.to(torch.uint8)), list((drawn.background > 0).to(torch.uint8))


def losses_of_torchvision(model, seed):
    generator = torch.Generator().manual_seed(seed)
    model.rpn.fg_bg_sampler = Lots(RandomSampler(256, 0.5), generator)
    model.roi_heads.fg_bg_sampler = Lots(RandomSampler(512, 0.25), generator)
    images, _ = model.transform(list(random_images().double()))
    targets = [{"boxes": b.double(), "labels": n + 1} for b, n in zip(TRUTH.boxes, TRUTH.labels)]
    features = model.backbone(ImageList(images.tensors, [SIZE, SIZE]).tensors)
    model.rpn.training = model.roi_heads.training = True
    proposals, first = model.rpn(images, features, targets)
    _, second = model.roi_heads(features, proposals, images.image_sizes, targets)
    model.rpn.training = model.roi_heads.training = False
    return first | second


@pytest.mark.slow
def test_plans_samples_losses_and_gradients_are_torchvisions(pair):
    """Assignment, sampling with the same lots, and losses, end to end; gradients of every weight. All in float64."""
    model, detector = (deepcopy(one).double() for one in pair)
    for name in ("mean", "std"):  # buffers that were rounded to float32; fifty layers make much of that
        getattr(detector, name).copy_(torch.tensor(getattr(detector.spec, name), dtype=torch.float64).view(-1, 1, 1))
    theirs = losses_of_torchvision(model, seed=3)
    model.zero_grad()
    sum(theirs.values()).backward()
    objective = TrainingStep(detector, lessons_of(detector.spec), generator=torch.Generator().manual_seed(3))
    terms = objective(batch().map(lambda values: values.double() if values.is_floating_point() else values))
    losses = {name: term.total / term.count for name, term in terms.items()}
    detector.zero_grad()
    sum(losses.values()).backward()
    names = {
        "rpn/class": "loss_objectness",
        "rpn/box": "loss_rpn_box_reg",
        "roi/class": "loss_classifier",
        "roi/box": "loss_box_reg",
    }
    assert terms["roi/box"].total > 0
    for ours, name in names.items():
        # torchvision adds up what its proposals' classes cost in float32, whatever it is given.
        torch.testing.assert_close(losses[ours].detach(), theirs[name].detach().double(), rtol=1e-6, atol=1e-9)
    expected = from_torchvision(model, CLASSES)  # the same names as ours
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in detector.named_parameters():
        their_name = _their_name(name)
        size = grads[their_name].abs().max()
        assert (parameter.grad - grads[their_name]).abs().max() < 1e-5 * size, name
    assert set(dict(expected.named_parameters())) == set(dict(detector.named_parameters()))


def _their_name(name):
    from ladle.families.torchvision_models import _NAMES

    for theirs, ours in _NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


@pytest.mark.slow
def test_frozen_layers_keep_their_own_floor():
    model = build(fasterrcnn_resnet50_fpn)
    frozen = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=6, min_size=128, max_size=192)

    def freeze(module):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                layer = FrozenBatchNorm2d(child.num_features, eps=0.0)
                setattr(module, name, layer)
            else:
                freeze(child)

    freeze(frozen.backbone.body)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    frozen.load_state_dict(state)
    frozen.eval()
    detector = from_torchvision(frozen, CLASSES).eval()
    assert detector.spec.backbone.norm == "frozen"
    with torch.no_grad():
        theirs = frozen.backbone(frozen.transform(list(random_images()))[0].tensors)
        ours = detector.extract_features(random_images())
    for a, b in zip(theirs.values(), ours):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_model_that_is_another_is_refused():
    model = build(fasterrcnn_resnet50_fpn)
    with pytest.raises(UserError, match=r"with 3 classes: \d+ tensors do not fit"):
        from_torchvision(model, ("a", "b", "c"))


# ----------------------------------------------------------------------------------------------------- our own networks


def small(name, seed=0):
    torch.manual_seed(seed)
    return detector_spec(name, CLASSES, imgsz=96).build()


@pytest.mark.parametrize("name", ["fasterrcnn-tiny", "cascade-tiny"])
def test_a_detector_in_stages_comes_back_from_its_file(name, tmp_path):
    from ladle.detectors import load_detector, save_detector

    detector = small(name).eval()
    save_detector(detector, str(tmp_path / "d.safetensors"))
    again = load_detector(tmp_path / "d.safetensors").eval()
    assert again.spec == detector.spec
    with torch.no_grad():
        for one, other in zip(detector(random_images(), SIZES), again(random_images(), SIZES)):
            assert torch.equal(one.predictions.boxes, other.predictions.boxes)


@torch.no_grad()
def test_proposals_do_not_overlap_much_lie_in_the_image_and_come_best_first():
    detector = small("fasterrcnn-tiny").eval()
    nn.init.normal_(detector.stages[0].head.cls_logits.weight, std=1.0)
    sizes = torch.tensor([[128, 192], [100, 120]])
    output = detector(random_images(), sizes)[0]
    found, real = best_proposals(output, candidates=100, keep=30, nms=0.5)
    for row, (height, width) in enumerate(sizes.tolist()):
        mine = found[row, real[row]]
        assert 3 < len(mine) <= 30
        assert mine.min() >= 0
        assert mine[:, 2].max() <= width
        assert mine[:, 3].max() <= height
        assert not found[row, ~real[row]].any()
    scores = output.predictions.scores[0, :, 0]
    first = found[0, 0]
    overlap = pairwise_iou(first[None], output.predictions.boxes[0])[0]
    assert scores[overlap.argmax()] == scores.max()


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_proposals_on_a_gpu_are_those_of_the_cpu(seed):
    detector = small("fasterrcnn-tiny", seed).eval()
    nn.init.normal_(detector.stages[0].head.cls_logits.weight, std=1.0)
    nn.init.normal_(detector.stages[0].head.bbox_pred.weight, std=0.3)
    output = detector(random_images(), torch.tensor([[128, 192], [64, 40]]))[0]
    broken = output.predictions.boxes.clone()
    broken[0, ::7], broken[1, ::5, 0] = torch.nan, 1e9  # neither is proposed, and neither suppresses another
    for one in (output, replace(output, predictions=replace(output.predictions, boxes=broken), sizes=None)):
        expected, real = best_proposals(one, candidates=100, keep=40, nms=0.5)
        with as_on_a_gpu():
            found, also_real = best_proposals(one, candidates=100, keep=40, nms=0.5)
        assert real.sum() > 40
        assert torch.equal(found, expected)
        assert torch.equal(also_real, real)


def test_ground_truth_is_put_among_proposals_in_training_alone():
    detector = small("fasterrcnn-tiny").train()
    features = detector.extract_features(random_images())
    first, second = detector.chain
    priors = first.propose(features, None, None, SIZES)
    said = Output(first(features, priors)[0], priors, features, SIZES)
    crowded = replace(TRUTH, crowd=torch.tensor([[False, True], [False, False]]))
    taught = second.propose(features, said, crowded, SIZES)
    assert taught.counts == (500, 2)
    assert torch.equal(taught.boxes[:, 500:], TRUTH.boxes)
    assert taught.valid[:, 500:].tolist() == [[True, False], [True, True]]
    assert second.propose(features, said, None, SIZES).counts == (200,)


@torch.no_grad()
@pytest.mark.parametrize("name", ["fasterrcnn-tiny", "cascade-tiny"])
@pytest.mark.slow
def test_two_stages_find_as_many_objects_as_they_may(name):
    detector = small(name).eval()
    for stage in detector.chain[1:]:
        stage.class_score.bias.copy_(torch.tensor([-3.0] + [0.0] * len(CLASSES)))
    detector.spec = replace(detector.spec, inference=replace(detector.spec.inference, nms=1.0))
    few, usual, many = ([len(one.scores) for one in detector.keep(most).detect(batch())] for most in (7, 100, 5000))
    assert few == [7, 7]
    assert usual == [100, 100]
    assert min(many) > 200 * len(CLASSES), "more than 200 proposals are looked at"
    assert detector.spec.regions[0].proposals.keep == (500, 10_000)
    assert detector.spec.regions[0].proposals.candidates == (500, 15_000)
    assert detector.chain[1].spec == detector.spec.regions[0]


@torch.no_grad()
def test_each_look_of_a_cascade_starts_where_the_one_before_ended_and_probs_are_averaged():
    detector = small("cascade-tiny").eval()
    outputs = detector(random_images(), SIZES)
    for earlier, later in zip(outputs[1:], outputs[2:]):
        assert torch.equal(later.priors.boxes.amax(), earlier.predictions.boxes.clamp(min=0).amax().clamp(max=192.0))
        assert torch.equal(later.priors.valid, earlier.priors.valid)
    from ladle.detectors.detector import _averaged

    mean = torch.stack([one.predictions.scores for one in outputs[1:]]).mean(0)
    torch.testing.assert_close(_averaged(outputs[1:]).predictions.scores, mean)


def test_exclusive_classes_share_one_softmax_with_background():
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) * 5
    said = Predictions(logits, torch.zeros(2, 3, 4), exclusive=True)
    expected = torch.cat([logits, torch.zeros(2, 3, 1)], -1).softmax(-1)[..., :4]
    torch.testing.assert_close(said.scores, expected)
    torch.testing.assert_close(said.log_odds.sigmoid(), expected, rtol=1e-4, atol=1e-6)
    sure = replace(said, logits=torch.full_like(logits, 200.0))
    assert sure.log_odds.isfinite().all()
