from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ladle.errors import UserError
from ladle.types import Assignment, GroundTruth, Priors
from ladle.visual import color, draw_assignment, positives_per_object

from .pixels import largest, middles, near, read

BLACK = torch.zeros(3, 320, 320, dtype=torch.uint8)
PALED = "#7f7f7f"
"""What black becomes behind the dots."""


def grid(side: int = 320, strides: tuple[int, ...] = (8, 16, 32, 64)) -> Priors:
    """Square priors of four strides' side in the middle of every cell."""
    boxes, counts = [], []
    for stride in strides:
        at = (torch.arange(side // stride) + 0.5) * stride
        y, x = torch.meshgrid(at, at, indexing="ij")
        center = torch.stack([x, y], -1).reshape(-1, 2)
        boxes.append(torch.cat([center - 2 * stride, center + 2 * stride], -1))
        counts.append(len(center))
    level = torch.arange(len(strides)).repeat_interleave(torch.tensor(counts))
    stride = torch.tensor(strides, dtype=torch.float32)[level]
    return Priors(torch.cat(boxes)[None], stride, level, torch.ones(1, len(level), dtype=torch.bool), tuple(counts))


def truth_of(boxes: list[list[float]], crowd: list[bool] | None = None) -> GroundTruth:
    flags = torch.tensor(crowd if crowd is not None else [False] * len(boxes), dtype=torch.bool)
    return GroundTruth.pad([torch.tensor(boxes).reshape(-1, 4)], [torch.zeros(len(boxes), dtype=torch.long)], [flags])


def plan_of(priors: Priors, learners: dict[int, int], ignored: list[int] | None = None) -> Assignment:
    """Prior -> object; the rest is background but for ``ignored``."""
    count = len(priors.stride)
    index, positive = torch.zeros(1, count, dtype=torch.long), torch.zeros(1, count, dtype=torch.bool)
    for prior, learnt in learners.items():
        index[0, prior], positive[0, prior] = learnt, True
    background = torch.ones(1, count, dtype=torch.bool)
    background[0, ignored or []] = False
    return Assignment.hard(index, positive, background)


def panel_of(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Where the paled black image lies: left, top, right, bottom."""
    return largest(near(pixels, PALED, reach=2))


def dots(path: Path, shade: str, panel: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    """Centers of the blobs of one color, in pixels of the 320 pixel image."""
    left, top, right, bottom = panel
    inside = near(read(path), shade)[top:bottom, left:right]
    return [(x * 320 / (right - left), y * 320 / (bottom - top)) for x, y in middles(inside)]


def test_a_positive_prior_is_a_dot_at_its_center_in_its_objects_color(tmp_path: Path) -> None:
    # The boxes lie far from their dots, so that each dot is a blob of its own.
    priors, truth = grid(), truth_of([[200, 200, 310, 310], [10, 220, 120, 310]])
    plan = plan_of(priors, {40 * 5 + 5: 0, 40 * 5 + 25: 1})
    path = draw_assignment(BLACK, truth, priors, {"student judges": plan}, tmp_path / "a.png")
    panel = panel_of(read(path))
    for shade, expected in ((color(0), (44.0, 44.0)), (color(1), (204.0, 44.0))):
        found = [(x, y) for x, y in dots(path, shade, panel) if y < 100]
        assert len(found) == 1
        assert found[0] == pytest.approx(expected, abs=1.0)


def test_background_and_padding_are_not_drawn(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[100, 100, 200, 200]])
    outside = replace(priors, valid=torch.zeros_like(priors.valid))
    nothing = plan_of(priors, {})
    ignored = plan_of(priors, {}, ignored=[0, 1, 2])
    plain = read(draw_assignment(BLACK, truth, priors, {"plan": nothing}, tmp_path / "a.png"))
    padded = read(draw_assignment(BLACK, truth, outside, {"plan": ignored}, tmp_path / "b.png"))
    marked = read(draw_assignment(BLACK, truth, priors, {"plan": ignored}, tmp_path / "c.png"))
    assert (plain == padded).all()
    left, top, right, bottom = panel_of(plain)
    changed = (plain != marked).any(-1)[top:bottom, left:right]
    assert changed.any()
    assert changed.nonzero()[0].max() * 320 / (bottom - top) < 12
    assert changed.nonzero()[1].max() * 320 / (right - left) < 28


def test_dots_grow_with_the_stride(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[200, 200, 310, 310]])
    first = [0, *torch.tensor(priors.counts).cumsum(0)[:-1].tolist()]
    sizes = []
    for start in first:
        path = draw_assignment(BLACK, truth, priors, {"plan": plan_of(priors, {start: 0})}, tmp_path / "a.png")
        pixels = read(path)
        left, top, _, _ = panel_of(pixels)
        sizes.append(int(near(pixels, color(0))[top : top + 250, left : left + 250].sum()))
    assert sizes == sorted(set(sizes))


def test_every_plan_has_a_panel_of_its_own_and_all_are_equal(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[100, 100, 200, 200]])
    plans = {f"plan {i}": plan_of(priors, {}) for i in range(3)}
    mask = near(read(draw_assignment(BLACK, truth, priors, plans, tmp_path / "a.png")), PALED, reach=2)
    row = mask[mask.shape[0] // 5]
    edges = (row[1:] != row[:-1]).nonzero()[0]
    widths = edges[1::2] - edges[::2]
    assert len(widths) == 3
    assert widths.max() - widths.min() <= 1


@pytest.mark.slow
def test_many_plans_wrap_into_rows(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[100, 100, 200, 200]])
    four = read(
        draw_assignment(BLACK, truth, priors, {str(i): plan_of(priors, {}) for i in range(4)}, tmp_path / "a.png")
    )
    five = read(
        draw_assignment(BLACK, truth, priors, {str(i): plan_of(priors, {}) for i in range(5)}, tmp_path / "b.png")
    )
    assert five.shape[1] == four.shape[1]
    assert five.shape[0] > 1.6 * four.shape[0]


def test_the_weak_priors_of_a_soft_plan_fade(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[200, 200, 310, 310]])
    affinity = torch.zeros(1, len(priors.stride), 1)
    affinity[0, 40 * 5 + 5], affinity[0, 40 * 5 + 25] = 1.0, 0.3
    plan = Assignment(
        torch.zeros_like(affinity).long(), affinity, torch.zeros(1, len(priors.stride)) + (affinity[..., 0] == 0)
    )
    path = draw_assignment(BLACK, truth, priors, {"plan": plan}, tmp_path / "a.png")
    strong = [(x, y) for x, y in dots(path, color(0), panel_of(read(path))) if y < 100]
    assert len(strong) == 1
    assert strong[0] == pytest.approx((44.0, 44.0), abs=1.0)


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.slow
def test_any_number_of_objects_can_be_drawn(tmp_path: Path, count: int) -> None:
    noise = torch.Generator().manual_seed(count)
    low = torch.rand(count, 2, generator=noise) * 250
    boxes = torch.cat([low, low + 10 + torch.rand(count, 2, generator=noise) * 60], 1)
    priors, truth = grid(), truth_of(boxes.tolist())
    plan = plan_of(priors, {40 * i + i: i for i in range(min(count, 40))}, ignored=[7, 8])
    pixels = read(draw_assignment(BLACK, truth, priors, {"plan": plan}, tmp_path / "a.png"))
    seen = sum(near(pixels, color(i), reach=3).sum() > 20 for i in range(count))
    assert seen == count


def test_a_crowd_gets_no_number_and_no_color(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[50, 50, 250, 250]], crowd=[True])
    pixels = read(draw_assignment(BLACK, truth, priors, {"plan": plan_of(priors, {})}, tmp_path / "a.png"))
    assert not near(pixels, color(0)).any()
    assert near(pixels, "#6b7280", reach=6).sum() > 200


def test_a_batch_and_an_empty_comparison_are_refused(tmp_path: Path) -> None:
    priors, truth = grid(), truth_of([[100, 100, 200, 200]])
    two = truth.map(lambda t: torch.cat([t, t]))
    with pytest.raises(UserError, match="batch of 2"):
        draw_assignment(BLACK, two, priors, {"plan": plan_of(priors, {})}, tmp_path / "a.png")
    with pytest.raises(UserError, match="no plan"):
        draw_assignment(BLACK, truth, priors, {}, tmp_path / "a.png")


def test_positives_are_counted_per_object() -> None:
    priors, truth = grid(), truth_of([[0, 0, 9, 9], [5, 5, 50, 50], [0, 0, 20, 20]], crowd=[False, False, True])
    plan = plan_of(priors, {1: 1, 2: 1, 3: 0, 900: 1, 901: 2})
    assert positives_per_object(plan, truth).tolist() == [[1.0, 3.0, 0.0]]


def test_background_priors_count_for_no_object_though_their_index_is_zero() -> None:
    priors, truth = grid(), truth_of([[0, 0, 9, 9]])
    assert positives_per_object(plan_of(priors, {}), truth).tolist() == [[0.0]]


def test_a_prior_that_learns_two_objects_counts_for_both() -> None:
    truth = truth_of([[0, 0, 9, 9], [5, 5, 50, 50]])
    objects = torch.tensor([[[0, 1], [0, 1]]])
    affinity = torch.tensor([[[0.2, 0.8], [0.0, 0.1]]])
    assert positives_per_object(Assignment(objects, affinity, torch.zeros(1, 2)), truth).tolist() == [[1.0, 2.0]]


def test_a_batch_without_objects_has_an_empty_tally() -> None:
    priors, truth = grid(), truth_of([])
    tally: Tensor = positives_per_object(plan_of(priors, {}), truth)
    assert tally.shape == (1, 0)


@pytest.mark.slow
def test_importing_the_images_loads_no_plotting_library() -> None:
    heavy = {"matplotlib", "faster_coco_eval", "torchvision"}
    code = f"import sys, ladle.visual, ladle.evaluation; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_proposal_is_drawn_as_the_box_it_is(tmp_path: Path) -> None:
    boxes = torch.tensor([[[40.0, 60, 120, 180], [200, 200, 280, 300], [20, 20, 60, 60]]])
    priors = Priors(boxes, torch.ones(3), torch.zeros(3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool), (3,))
    truth = truth_of([[150, 40, 310, 190]])
    draw_assignment(BLACK, truth, priors, {"nobody": plan_of(priors, {})}, tmp_path / "without.png")
    path = draw_assignment(
        BLACK, truth, priors, {"nobody": plan_of(priors, {0: 0}, ignored=[1])}, tmp_path / "with.png"
    )
    left, top, right, bottom = panel_of(read(path))
    changed = (read(path) != read(tmp_path / "without.png")).any(-1)[top:bottom, left:right]
    # The number at the object's own box changes too; the proposal lies left of it.
    y, x = (side * 320 / (right - left) for side in np.nonzero(changed[:, : round(140 * (right - left) / 320)]))
    assert (x.min(), y.min(), x.max(), y.max()) == pytest.approx((40, 60, 120, 180), abs=2.0)
    assert not changed[round(200 * (bottom - top) / 320) :].any(), "an ignored proposal is not drawn"
