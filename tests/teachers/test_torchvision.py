"""torchvision's detectors are read as torchvision itself reads them, box by box."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torchvision.models import detection

from ladle.boxes import clip
from ladle.detectors import Anchors
from ladle.errors import UserError
from ladle.teachers import ForeignTeacher, match_classes, open_teacher
from ladle.teachers.torchvision_file import TorchvisionTeacher, _densely, _set
from ladle.teachers.uri import parse_uri
from tests.teachers.batches import batch_of

SMALL = {"weights": None, "weights_backbone": None, "num_classes": 4}
LABELS = ("__background__", "cat", "N/A", "dog")


def built(name, labels=4):
    """A detector with random weights that finds something in images of 64 pixels."""
    torch.manual_seed(0)
    model = getattr(detection, name)(**SMALL | {"num_classes": labels}).eval()
    side = "" if model.transform.fixed_size else "imgsz=64&"
    _set(parse_uri(f"torchvision:{name}?{side}score=0.001"), model)
    return model


@pytest.mark.parametrize(
    "name", ["retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"]
)
def test_its_boxes_are_those_of_its_own_post_processing(name):
    model = built(name)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    sizes = [[64, 48], [40, 64]]
    teacher = TorchvisionTeacher(name, LABELS, model)
    assert teacher.classes == ("cat", "dog")
    found = teacher.find(batch_of(images, sizes))
    with torch.no_grad():
        wanted = [model([image[:, :h, :w] / 255])[0] for image, (h, w) in zip(images, sizes)]
    assert sum(len(one["boxes"]) for one in wanted) > 20
    for row, one in enumerate(wanted):
        kept = (one["labels"] == 1) | (one["labels"] == 3)
        count = int(kept.sum())
        assert torch.allclose(found.boxes[row, :count], one["boxes"][kept], atol=1e-2)
        scores = found.logits[row, :count].sigmoid()
        assert torch.allclose(scores.amax(-1), one["scores"][kept].clamp(min=1e-4), atol=1e-4)
        assert torch.equal(scores.argmax(-1), (one["labels"][kept] == 3).long())
        assert float(found.logits[row, count:].sigmoid().sum()) < 0.1


def test_an_ssd_takes_images_of_one_size_and_says_so():
    model = built("ssdlite320_mobilenet_v3_large")
    teacher = TorchvisionTeacher("ssdlite320_mobilenet_v3_large", LABELS, model)
    assert teacher.about[0] == "takes images as torchvision resizes and normalizes them (stretched to 320x320 px)"
    with pytest.raises(UserError, match=r"\?imgsz=640: it takes images of 320x320 pixels only; leave it out"):
        _set(parse_uri("torchvision:ssdlite320_mobilenet_v3_large?imgsz=640"), model)


@pytest.fixture(scope="module", params=["retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def dense(request):
    model = built(request.param)
    assert _densely(parse_uri(f"torchvision:{request.param}?dense=1"), model)
    with pytest.raises(UserError, match=r"\?score= is for final boxes and has no effect with \?dense=1"):
        _densely(parse_uri(f"torchvision:{request.param}?dense=1&score=0.1"), model)
    return TorchvisionTeacher(request.param, LABELS, model, dense=True)


IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_its_final_boxes_are_among_its_dense_predictions(dense):
    images, sizes = IMAGES, [[64, 48], [32, 64]]
    found = dense.find(batch_of(images, sizes))
    with torch.no_grad():
        wanted = [dense.model([image[:, :h, :w] / 255])[0] for image, (h, w) in zip(images, sizes)]
    for boxes, logits, one, (height, width) in zip(found.boxes, found.logits, wanted, sizes):
        boxes = clip(boxes[None], torch.tensor([[height, width]]))[0]
        kept = (one["labels"] == 1) | (one["labels"] == 3)
        assert int(kept.sum()) > 10
        for box, score, label in zip(one["boxes"][kept], one["scores"][kept], one["labels"][kept]):
            same = (logits[:, int(label == 3)].sigmoid() - score).abs() < 1e-4
            assert (((boxes - box).abs().amax(-1) < 1e-2) & same).any()


def test_its_dense_predictions_lie_on_its_grids(dense):
    """Without regression a box is its anchor, whose center is the place."""
    model = deepcopy(dense.model)
    last = [one for name, one in model.head.regression_head.named_modules() if name == "bbox_reg"]
    nn.init.zeros_(last[0].weight)
    nn.init.zeros_(last[0].bias)
    found = dense._replace(model=model).find(batch_of(IMAGES, [[64, 48], [32, 64]]))
    frame = found.frame.repeat_interleave(1, 0)[:, None, :2]
    centers = (found.boxes[..., :2] + found.boxes[..., 2:]) / 2 * frame
    places = [place for grid in found.grids for place in places_of(grid)]
    assert [grid.stride for grid in found.grids] == [8, 16, 32, 64, 128]
    assert torch.allclose(centers, torch.tensor(places).expand(2, -1, -1), atol=1e-3)


def test_its_dense_predictions_are_resampled_to_the_student_s_places(dense):
    shapes, strides = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)], [8, 16, 32, 64, 128]
    priors = Anchors((8.0,), offset=0.0).grid(shapes, strides, None, torch.device("cpu"))
    teacher = ForeignTeacher(dense, match_classes(dense.classes, ["dog", "cat"]))
    moved = teacher.predict_at(teacher.observe(batch_of(IMAGES)), priors).predictions
    found = dense.find(batch_of(IMAGES))
    finest = found.grids[0]
    own = found.logits[:, : finest.height * finest.width * finest.each]
    own = own.unflatten(1, (finest.height, finest.width, finest.each))[:, :8, :8].flatten(1, 2)
    best = own.amax(-1).argmax(-1)[..., None, None].expand(-1, -1, 1, 2)
    assert torch.equal(moved.logits[:, :64], own.gather(2, best).squeeze(2).flip(-1))


def places_of(grid):
    every = [(x * grid.stride, y * grid.stride) for y in range(grid.height) for x in range(grid.width)]
    return [place for place in every for _ in range(grid.each)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "ssdlite.pt"
    torch.manual_seed(0)
    torch.save(detection.ssdlite320_mobilenet_v3_large(**SMALL | {"num_classes": 3}).state_dict(), file)
    return file


@pytest.mark.slow
def test_weights_and_names_from_files(weights, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    text = f"torchvision:ssdlite320_mobilenet_v3_large?weights={weights}&classes={tmp_path / 'names.txt'}"
    teacher = open_teacher(text, ["dog"])
    assert (teacher.table.columns, teacher.info.name) == ((1,), "ssdlite320_mobilenet_v3_large")
    assert teacher.detector.about[1] == "gives final boxes"
    with pytest.raises(UserError, match="only RetinaNet and FCOS have predictions at all places"):
        open_teacher(f"{text}&dense=1", ["dog"])
    with pytest.raises(UserError, match="does not fit a ssdlite320_mobilenet_v3_large of 91 labels"):
        open_teacher(text.partition("&")[0], ["dog"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fcos_resnet50_fpn", "it has random weights: expected fcos_resnet50_fpn_coco-99b0c9b7.pth in"),
        ("yolo", "torchvision has no detector 'yolo'; expected one of fasterrcnn"),
        ("fcos_resnet50_fpn?weights=none.pt", "there is no such file"),
        ("fcos_resnet50_fpn?bgr=1", "torchvision has no option 'bgr'"),
    ],
)
def test_what_has_no_weights_is_refused(text, named, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=named):
        open_teacher(f"torchvision:{text}", ["cat"])
