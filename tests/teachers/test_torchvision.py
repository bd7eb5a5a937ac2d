"""torchvision's detectors are read as torchvision itself reads them, box by box."""

import pytest
import torch
from torchvision.models import detection

from ladle.errors import UserError
from ladle.teachers import open_teacher
from ladle.teachers.torchvision_file import TorchvisionTeacher, _set
from ladle.teachers.uri import parse_uri
from tests.teachers.batches import batch_of

SMALL = {"weights": None, "weights_backbone": None, "num_classes": 4}
LABELS = ("__background__", "cat", "N/A", "dog")


def built(name, labels=4):
    """A detector with random weights that finds something in images of 64 pixels."""
    torch.manual_seed(0)
    model = getattr(detection, name)(**SMALL | {"num_classes": labels}).eval()
    _set(parse_uri(f"torchvision:{name}?imgsz=64&score=0.001"), model)
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


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "ssdlite.pt"
    torch.manual_seed(0)
    torch.save(detection.ssdlite320_mobilenet_v3_large(**SMALL | {"num_classes": 3}).state_dict(), file)
    return file


def test_weights_and_names_from_files(weights, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    text = f"torchvision:ssdlite320_mobilenet_v3_large?weights={weights}&classes={tmp_path / 'names.txt'}"
    teacher = open_teacher(text, ["dog"])
    assert (teacher.table.columns, teacher.info.name) == ((1,), "ssdlite320_mobilenet_v3_large")
    assert teacher.detector.about[1] == "gives final boxes"
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
