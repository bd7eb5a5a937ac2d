"""The distillers of feature maps against loops, and what they have in common."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ladle.distillers import CWD, FGD, MGD, PKD, DeFeat, FineGrained, FitNet, GeneralInstance
from ladle.distillers.levels import CELLS, CHANNELS, UNIT, Levels, level_pairs
from ladle.distillers.regions import near_best
from ladle.networks import NetworkInfo, StageInfo
from ladle.testing import example_output
from ladle.types import GroundTruth, Pyramid
from tests.distillers import naive

PYRAMID = Pyramid((8, 8, 8), (8, 16, 32))
ALL = (FitNet(), FineGrained(), GeneralInstance(), DeFeat(), FGD(), CWD(), MGD(), PKD())


class Net:
    """What a distiller asks of a network before training."""

    head = None

    def __init__(self, pyramid=PYRAMID):
        self.pyramid = pyramid


def build(distil, teacher=PYRAMID, seed=0):
    torch.manual_seed(seed)
    return distil.build(Net(), Net(teacher))


def scene():
    (student, truth, plan), (teacher, _, _) = example_output(0), example_output(1)
    return student, replace(teacher, priors=student.priors), truth, plan


def paid(distil, *case):
    return {name: float(t.total.detach() / t.count) for name, t in build(distil)(*case).items()}


def lists(truth):
    return [[box.tolist() for box, real in zip(*row) if real] for row in zip(truth.boxes, truth.learnable)]


SIZES = torch.tensor([[192, 256], [150, 201]])


@pytest.mark.parametrize("sizes", [None, SIZES], ids=["filled", "padded"])
@pytest.mark.parametrize(
    ("distil", "expected"),
    [
        (FitNet(weight=1.0, relative=False), naive.fitnet),
        (PKD(weight=1.0), naive.pkd),
        (PKD(weight=1.0, finest=2), lambda s, t, sizes: naive.pkd(s, t, sizes, finest=2)),
        (CWD(weight=1.0, relative=False), lambda s, t, sizes: naive.cwd(s, t, sizes=sizes)),
        (CWD(1.0, 2.0, relative=False), lambda s, t, sizes: naive.cwd(s, t, 2.0, sizes)),
    ],
    ids=lambda value: getattr(value, "__name__", None) or repr(value),
)
def test_maps_are_compared_as_the_paper_says(distil, expected, sizes):
    student, teacher, truth, plan = scene()
    (value,) = paid(distil, replace(student, sizes=sizes), teacher, truth, plan).values()
    assert value == pytest.approx(expected(student, teacher, sizes), rel=1e-4)


def test_fgd_is_its_paper_written_out():
    case = scene()
    found = paid(FGD(1.0, 1.0, 1.0, 0.0, share="cell", relative=False), *case)
    expected = naive.fgd(*case[:2], lists(case[2]))
    names = ("fgd_foreground", "fgd_background", "fgd_attention")
    assert [found[name] for name in names] == pytest.approx(expected, rel=1e-4)
    assert "fgd_relation" not in found


def test_fgd_relates_every_cell_to_the_whole_map():
    student, teacher, truth, plan = scene()
    distil = build(FGD(0.0, 0.0, 0.0, 1.0, share="cell", relative=False))
    at_first = float(distil(student, teacher, truth, plan)["fgd_relation"].total.detach())
    plain = sum(float((a - b).square().sum()) for a, b in zip(student.features, teacher.features))
    assert at_first == pytest.approx(plain, rel=1e-4)
    context = distil.student_context[0]
    nn.init.normal_(context.transform[-1].weight)
    x = student.features[0]
    prob = context.attend(x).flatten(2).softmax(-1)
    whole = torch.stack([(x[b].flatten(1) * prob[b]).sum(-1) for b in range(2)])
    hidden = context.transform[1](context.transform[0](whole)).relu()
    added = hidden @ context.transform[3].weight.T + context.transform[3].bias
    level = distil.levels(student, teacher)[0]
    torch.testing.assert_close(context(x, level), x + added[..., None, None])


def test_defeat_is_its_release_written_out():
    case = scene()
    # A box that is thin from side to side, one from top to bottom, and one that has no size at all.
    thin = torch.tensor([[[17.0, 20.0, 20.0, 90.0], [30.0, 17.0, 200.0, 22.0], [100.0, 100.0, 101.0, 101.0]]])
    boxes = torch.cat([case[2].boxes, thin.expand(2, -1, -1)], 1)
    case = (*case[:2], GroundTruth.pad(list(boxes), [torch.zeros(boxes.shape[1]).long()] * 2), case[3])
    found = paid(DeFeat(1.0, 1.0, relative=False), *case)
    expected = naive.defeat(*case[:2], lists(case[2]))
    assert [found["defeat_foreground"], found["defeat_background"]] == pytest.approx(expected, rel=1e-4)
    assert all(value > 0 for value in expected)


def test_fine_grained_looks_where_priors_overlap_nearly_best():
    student, teacher, truth, plan = scene()
    marked = near_best(student.priors, truth, 0.5)
    boxes = student.priors.boxes[0].tolist()
    valid = student.priors.valid[0].tolist()
    for image, objects in enumerate(lists(truth)):
        expected = naive.near_best([box if ok else [0, 0, 0, 0] for box, ok in zip(boxes, valid)], objects, 0.5)
        assert marked[image].tolist() == expected
    for rectified in (False, True):
        total = 0.0
        for student_out, teacher_out, part in zip(
            student.features, teacher.features, marked.split(student.priors.counts, dim=1)
        ):
            mask, maps = (
                part.view(2, 1, *student_out.shape[-2:]),
                student_out.relu() if rectified else student_out,
            )
            total += 0.01 * float(((maps - teacher_out).square() * mask).sum() / (2 * mask.sum()).clamp(min=1))
        found = paid(FineGrained(rectified=rectified, relative=False), student, teacher, truth, plan)
        assert found == {"fine_grained": pytest.approx(total, rel=1e-4)}


def test_general_instances_are_the_greedy_choice():
    student, teacher, truth, plan = scene()
    student_out, teacher_out, priors = student.predictions, teacher.predictions, student.priors
    apart = teacher_out.scores - student_out.scores
    gap, best = apart.abs().max(-1)
    teacher_surer = apart.gather(-1, best.unsqueeze(-1)) >= 0
    boxes = torch.where(teacher_surer, teacher_out.boxes, student_out.boxes)
    found = GeneralInstance(count=4).instances(student, teacher)
    for image in range(2):
        gaps = torch.where(priors.valid[0], gap[image], 0.0).tolist()
        expected = naive.instances(gaps, boxes[image].tolist(), priors.level.tolist(), count=4)
        assert found[image].tolist() == expected
    total = 0.0
    for a, b, part in zip(student.features, teacher.features, found.split(priors.counts, dim=1)):
        mask = part.view(2, 1, *a.shape[-2:])
        total += float(((a - b).square() * mask).sum() / (mask.sum() * a.shape[1]).clamp(min=1))
    assert paid(GeneralInstance(weight=1.0, count=4, relative=False), student, teacher, truth, plan) == {
        "general_instance": pytest.approx(total, rel=1e-4)
    }


def test_mgd_erases_a_share_of_the_cells_and_makes_the_rest_up():
    student, teacher, truth, plan = scene()
    distil = build(MGD(weight=1.0, share="cell", relative=False))
    torch.manual_seed(4)
    found = float(distil(student, teacher, truth, plan)["mgd"].total.detach())
    torch.manual_seed(4)
    total, erased, cells = 0.0, 0, 0
    for student_out, teacher_out, net in zip(student.features, teacher.features, distil.generators):
        kept = torch.rand_like(student_out[:, :1]) <= 0.35
        erased, cells = erased + int((~kept).sum()), cells + kept.numel()
        total += float((net(student_out * kept) - teacher_out).square().sum().detach())
    assert found == pytest.approx(total, rel=1e-4)
    assert erased / cells == pytest.approx(0.65, abs=0.03)
    torch.manual_seed(4)
    half = build(MGD(weight=1.0, erased=0.0, share="cell", relative=False))
    assert float(half(student, teacher, truth, plan)["mgd"].total.detach()) != pytest.approx(found, rel=1e-3)


# -------------------------------------------------------------------------------------------------- what all share


@pytest.mark.parametrize("distil", [replace(one, relative=True) for one in ALL if type(one) is not PKD], ids=repr)
def test_in_units_of_the_teachers_maps_the_size_of_features_does_not_matter(distil):
    student, teacher, truth, plan = scene()
    large = [replace(one, features=tuple(10 * maps for maps in one.features)) for one in (student, teacher)]
    found = []
    for pair in ((student, teacher), large):
        built = build(distil)
        for adapter in built.levels.adapters:
            if isinstance(adapter, nn.Conv2d):
                nn.init.zeros_(adapter.bias)
        if isinstance(distil, MGD):
            built.generators = nn.ModuleList(nn.Identity() for _ in built.generators)
        if isinstance(distil, FGD):
            built.spec = replace(distil, relation=0.0)
        torch.manual_seed(1)
        terms = built(*pair, truth, plan)
        found.append({name: float(term.total.detach()) for name, term in terms.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert all(found[0].values())


def test_units_are_those_of_the_teacher():
    student, teacher, _, _ = scene()
    levels = Levels(PYRAMID, PYRAMID, relative=True)(student, teacher)
    for level, student_out, teacher_out in zip(levels, student.features, teacher.features):
        assert float(level.teacher.square().mean().sqrt()) == pytest.approx(UNIT, rel=1e-4)
        torch.testing.assert_close(level.student / level.teacher, student_out / teacher_out, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("distil", [MGD(share="level"), FGD(0.0, 0.0, 0.0, share="level")], ids=repr)
def test_no_level_dwarfs_the_rest(distil):
    """Where every cell costs the same, so does every level; summed up, the finest costs sixteen times the third."""
    student, teacher, truth, plan = scene()
    flat = [
        replace(one, features=tuple(torch.full_like(maps, value) for maps in one.features))
        for one, value in ((student, 1.0), (teacher, 2.0))
    ]
    shares = {}
    for share in ("level", "cell"):
        costs = []
        for number in range(3):
            built = build(replace(distil, share=share, relative=False))
            built.levels.pairs = (built.levels.pairs[number],)
            built.levels.adapters = nn.ModuleList([nn.Identity()])
            if isinstance(distil, MGD):
                built.generators = nn.ModuleList([nn.Identity()])
                built.spec = replace(built.spec, erased=0.0)
            else:
                built.student_context, built.teacher_context = built.student_context[:1], built.teacher_context[:1]
            costs.append(float(sum(t.total.detach() for t in built(*flat, truth, plan).values())))
        shares[share] = costs
    assert shares["level"] == pytest.approx([shares["level"][0]] * 3, rel=1e-4)
    assert shares["cell"][0] == pytest.approx(16 * shares["cell"][2], rel=1e-4)
    assert shares["level"][0] / shares["cell"][0] == pytest.approx(CHANNELS * CELLS / (8 * 24 * 32), rel=1e-4)


@pytest.mark.parametrize("distil", ALL, ids=repr)
def test_a_wider_teacher_on_other_strides_is_reached(distil):
    """Channels by a convolution that is trained, strides by resampling; nothing of it is missing a gradient."""
    student, teacher, truth, plan = scene()
    coarse = Pyramid((12, 12), (16, 32))
    maps = tuple(torch.randn(2, 12, 192 // s, 256 // s) for s in (16, 32))
    built = build(distil, coarse)
    built_levels = built.levels.pairs
    assert built_levels == ((0, 0), (1, 0), (2, 1))
    terms = built(student, replace(teacher, features=maps), truth, plan)
    loss = sum(term.total / term.count for term in terms.values())
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in built.parameters())
    assert {tuple(adapter.weight.shape[:2]) for adapter in built.levels.adapters} == {(12, 8)}


def test_levels_meet_in_their_order_where_each_finds_one_near():
    five, four = Pyramid((4,) * 5, (8, 16, 32, 64, 128)), Pyramid((4,) * 5, (4, 8, 16, 32, 64))
    assert level_pairs(five, four, "index", most=4) == ((0, 0), (1, 1), (2, 2), (3, 3))
    assert level_pairs(five, four, "stride", most=4) == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert level_pairs(PYRAMID, four, "index", most=4) == ((0, 0), (1, 1), (2, 2))
    assert level_pairs(five, PYRAMID, "index", most=4) == ((0, 0), (1, 1), (2, 2), (3, 2))
    assert level_pairs(PYRAMID, Pyramid((4,) * 3, (32, 64, 128)), "index") == ((1, 0), (2, 0))
    assert level_pairs(PYRAMID, PYRAMID, "index") == level_pairs(PYRAMID, PYRAMID)


def test_pkd_brings_the_student_to_the_teachers_grid():
    """As mmrazor does it: levels by their order, the student's maps resampled bilinearly."""
    student, teacher, truth, plan = scene()
    fine = tuple(torch.randn(2, 8, 192 // s, 256 // s) for s in (4, 8, 16))
    teacher_out = replace(teacher, features=fine)
    (value,) = (
        float(term.total.detach() / term.count)
        for term in build(PKD(1.0), Pyramid((8,) * 3, (4, 8, 16)))(student, teacher_out, truth, plan).values()
    )
    larger = [F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False) for maps in student.features]
    assert value == pytest.approx(naive.pkd(replace(student, features=tuple(larger)), teacher_out), rel=1e-4)


def test_levels_meet_at_the_nearest_stride():
    five = Pyramid((4,) * 5, (8, 16, 32, 64, 128))
    assert level_pairs(five, five) == ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4))
    assert level_pairs(PYRAMID, five) == ((0, 0), (1, 1), (2, 2))
    assert level_pairs(five, PYRAMID) == ((0, 0), (1, 1), (2, 2), (3, 2))
    assert level_pairs(PYRAMID, Pyramid((4, 4), (4, 8))) == ((0, 1), (1, 1))
    with pytest.raises(ValueError, match="no feature map of the teacher"):
        Levels(PYRAMID, Pyramid((4,), (256,)))


@pytest.mark.parametrize("distil", ALL, ids=repr)
def test_padding_has_no_say(distil):
    student, teacher, truth, plan = scene()
    student = replace(student, sizes=torch.tensor([[192, 256], [96, 128]]))
    inside = replace(truth, boxes=truth.boxes.clamp(max=90))

    def noise(one):
        maps = [m.clone() for m in one.features]
        for m, stride in zip(maps, (8, 16, 32)):
            m[1, :, math.ceil(96 / stride) :] += 5
            m[1, :, :, math.ceil(128 / stride) :] += 5
        return replace(one, features=tuple(maps))

    found = []
    for pair in ((student, teacher), (noise(student), noise(teacher))):
        built = build(distil)
        torch.manual_seed(1)
        for conv in built.modules():  # convolutions that start as the identity read no neighbors
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, std=0.1)
        terms = built(*pair, inside, plan)
        found.append({name: float(term.total.detach()) for name, term in terms.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("distil", ALL, ids=repr)
def test_weights_of_nought_leave_no_term(distil):
    names = {"weight", "foreground", "background", "attention", "relation"} & set(vars(distil))
    built = build(replace(distil, **dict.fromkeys(names, 0.0)))
    assert built(*scene()) == {}


def test_a_dead_channel_has_no_gradient_that_is_none():
    student, teacher, truth, plan = scene()
    maps = [m.clone().requires_grad_() for m in student.features]
    dead = replace(student, features=tuple(torch.cat([0 * m[:, :1], m[:, 1:]], 1) for m in maps))
    PKD().build(Net(), Net())(dead, teacher, truth, plan)["pkd"].total.backward()
    assert all(m.grad.isfinite().all() for m in maps)


def test_the_summary_names_what_is_compared_and_what_is_not():
    student = NetworkInfo("student", ("a",) * 3, Pyramid((48,) * 5, (8, 16, 32, 64, 128)), (StageInfo(3),))
    teacher = replace(student, pyramid=Pyramid((96,) * 3, (8, 16, 32)))
    summary = PKD(finest=3).summarize(student, teacher, 0)
    assert summary.teaches == {
        "pkd": "correlation of channels, maps of stride 8, 16, 32, 1 x 1 convolutions from 48 to 96 channels"
    }
    assert summary.skips == (
        "pkd at stride 128: the teacher has no map near it",
        "pkd at stride 64: the 3 finest levels count",
    )
    for distil in ALL:
        terms = build(distil)(*scene())
        assert set(distil.summarize(student, student, 0).teaches) == set(terms)
