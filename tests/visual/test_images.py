from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from ladle.errors import UserError
from ladle.types import Detections
from ladle.visual import Panel, color, draw_detections, side_by_side
from ladle.visual.images import free_place

from .pixels import near, read

CLASSES = ("cat", "dog", "a bird with a long name")


def blank(height: int = 700, width: int = 800) -> torch.Tensor:
    return torch.full((3, height, width), 255, dtype=torch.uint8)


def detections(boxes: list[list[float]], labels: list[int]) -> Detections:
    scores = torch.linspace(0.9, 0.5, len(labels))
    return Detections(torch.tensor(boxes).reshape(-1, 4), scores, torch.tensor(labels, dtype=torch.long))


def test_a_box_is_drawn_where_it_is_in_the_color_of_its_class(tmp_path: Path) -> None:
    path = draw_detections(blank(), detections([[200.0, 300.0, 500.0, 600.0]], [1]), CLASSES, tmp_path / "a.png")
    mask = near(read(path), color(1))
    assert mask.shape == (700, 800)
    assert mask[300:601, 200].all()
    assert mask[600, 200:501].all()
    assert not mask[310:590, 210:490].any()
    assert mask[286:298, 201:204].all(), "the label hangs on the upper left corner"


def test_small_images_are_enlarged_by_a_whole_factor(tmp_path: Path) -> None:
    path = draw_detections(blank(100, 160), detections([[20.0, 40.0, 60.0, 80.0]], [0]), CLASSES, tmp_path / "a.png")
    mask = near(read(path), color(0))
    assert mask.shape == (400, 640)
    assert mask[160:321, 80].all()


def test_nothing_found_leaves_the_image_alone(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 640, 700), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = draw_detections(image, detections([], []), CLASSES, tmp_path / "new folder" / "a.png")
    assert (read(path) == image.permute(1, 2, 0).numpy()).all()


def test_boxes_beyond_the_image_or_inside_out_do_no_harm(tmp_path: Path) -> None:
    odd = detections([[-50.0, -50.0, 900.0, 900.0], [300.0, 300.0, 200.0, 200.0]], [0, 1])
    path = draw_detections(blank(), odd, CLASSES, tmp_path / "a.png")
    mask = near(read(path), color(1))
    assert mask[200:300, 200].all()


def test_labels_do_not_hide_each_other() -> None:
    taken: list[tuple[float, float, float, float]] = []
    for shift in range(4):
        box = (100.0 + shift, 100.0 + shift, 200.0 + shift, 200.0 + shift)
        place = free_place(box, (40.0, 12.0), taken, (400.0, 400.0))
        assert all(place[2] <= t[0] or t[2] <= place[0] or place[3] <= t[1] or t[3] <= place[1] for t in taken)
        taken.append(place)


@pytest.mark.parametrize("box", [(0.0, 0.0, 30.0, 30.0), (370.0, 370.0, 400.0, 400.0), (0.0, 0.0, 400.0, 400.0)])
def test_labels_stay_inside_the_image(box: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = free_place(box, (60.0, 12.0), [], (400.0, 400.0))
    assert x1 >= 0
    assert y1 >= 0
    assert x2 <= 400
    assert y2 <= 400


def test_panels_are_equally_large_and_in_order(tmp_path: Path) -> None:
    box = torch.tensor([[100.0, 100.0, 300.0, 300.0]])
    panels = [
        Panel("truth", torch.zeros(3, 640, 640, dtype=torch.uint8), box, torch.tensor([0])),
        Panel("student", torch.zeros(3, 640, 640, dtype=torch.uint8), box, torch.tensor([1]), torch.tensor([0.5])),
    ]
    pixels = read(side_by_side(panels, CLASSES, tmp_path / "a.png"))
    middle = near(pixels, "#000000")[-100]
    edges = (middle[1:] != middle[:-1]).nonzero()[0] + 1
    assert len(edges) == 4
    assert edges[1] - edges[0] == edges[3] - edges[2] == 640
    assert near(pixels, color(0))[:, : edges[1]].any()
    assert not near(pixels, color(0))[:, edges[2] :].any()
    assert near(pixels, color(1))[:, edges[2] :].any()


def test_a_label_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="label 3 has no name among 3 classes"):
        draw_detections(blank(), detections([[0.0, 0.0, 9.0, 9.0]], [3]), CLASSES, tmp_path / "a.png")


def test_no_panels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no panels"):
        side_by_side([], CLASSES, tmp_path / "a.png")


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    path = draw_detections(blank(), detections([], []), CLASSES, tmp_path / "a.jpg")
    with Image.open(path) as image:
        assert image.format == "JPEG"
