"""Detectors of torchvision are trained and evaluated on the same images and objects as ours."""

import torch
from torch import nn

from ladle.data.scenes import CLASSES, write_coco
from ladle.types import Batch, GroundTruth


class Repeats(nn.Module):
    """Finds the first two objects of what it was last trained on; remembers the images."""

    def forward(self, images, targets=None):
        self.images = images
        if targets is not None:
            self.targets = targets
            return {"loss": torch.tensor(3.0)}
        found = {"boxes": torch.tensor([[2.0, 4.0, 6.0, 8.0]]), "scores": torch.tensor([0.5])}
        return [found | {"labels": torch.tensor([2])} for _ in images]


def batch():
    """Two images, of which the second is smaller and has a crowd region; the first file was twice as large."""
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[:, :, :16, :8] = 255
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[1.0, 1.0, 5.0, 5.0], [0.0, 0.0, 8.0, 16.0]])]
    labels, crowd = [torch.tensor([1]), torch.tensor([0, 1])], [torch.tensor([False]), torch.tensor([False, True])]
    sizes, originals = torch.tensor([[32, 32], [16, 8]]), torch.tensor([[64, 64], [16, 8]])
    return Batch(images, GroundTruth.pad(boxes, labels, crowd), sizes, originals, ("a", "b"))


def test_an_objective_gives_torchvision_images_without_padding_and_labels_after_the_background(load):
    detector = Repeats()
    terms = load("torchvisions").Losses(detector)(batch())
    assert {name: float(term.total / term.count) for name, term in terms.items()} == {"loss": 3.0}
    assert [tuple(one.shape) for one in detector.images] == [(3, 32, 32), (3, 16, 8)]
    assert (detector.images[1] == 1).all()
    assert [one["labels"].tolist() for one in detector.targets] == [[2], [1]]  # no crowd region
    assert detector.targets[1]["boxes"].tolist() == [[1.0, 1.0, 5.0, 5.0]]


def test_detections_are_in_pixels_of_the_files_with_our_labels(load):
    found, cut = load("torchvisions").finder(Repeats())(batch())
    assert cut == 0
    assert [one.boxes.tolist() for one in found] == [[[4.0, 8.0, 12.0, 16.0]], [[2.0, 4.0, 6.0, 8.0]]]
    assert [one.labels.tolist() for one in found] == [[1], [1]]


def test_a_detector_of_torchvision_trains_with_the_flags_of_an_experiment(load, tmp_path):
    write_coco(tmp_path / "scenes", train=4, val=2, size=64)
    methods = load("methods")
    words = ["--data", str(tmp_path / "scenes"), "--out", str(tmp_path), "--imgsz", "64", "--epochs", "1"]
    arguments = methods.parse(words)
    arguments.flag = ["batch=2", "norm=batch", "backbone_weights=file.safetensors"]
    row = "torchvision:ssdlite320_mobilenet_v3_large!lr=0.002"
    (line,) = methods.scores(arguments, row, 3)
    assert (line["row"], line["method"], line["seed"]) == (row, row, 3)
    assert 0 <= line["ap"] <= 100
    assert line["per_class"].keys() == set(CLASSES)


def test_an_empty_value_leaves_a_flag_of_the_experiment_out(load):
    methods = load("methods")
    arguments = methods.parse(["--flag", "backbone_weights=file.safetensors"])
    assert methods.command(arguments, "plain", 0)[1]["backbone_weights"] == "file.safetensors"
    assert "backbone_weights" not in methods.command(arguments, "plain!backbone_weights=", 0)[1]
