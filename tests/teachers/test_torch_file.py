"""Programs of PyTorch are read as ONNX files are, and only where the user trusts them."""

import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ladle.errors import UserError
from ladle.teachers import open_teacher
from ladle.teachers.torch_file import _named
from ladle.teachers.uri import parse_uri
from tests.teachers.batches import batch_of
from tests.teachers.onnx_files import CELL, NAMES, SIDE, cells


class Colors(nn.Module):
    """Each cell is a box, its mean color the scores of red, green and blue; images from 0 to 255."""

    def __init__(self):
        super().__init__()
        self.register_buffer("cells", torch.from_numpy(cells()))

    def forward(self, images):
        scores = F.avg_pool2d(images, CELL).flatten(2).transpose(1, 2) / 255
        return self.cells.expand(images.shape[0], -1, -1) + 0, scores


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("programs"), torch.zeros(2, 3, SIDE, SIDE)
    program = torch.export.export(Colors(), (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    torch.export.save(program, folder / "colors.pt2")
    with warnings.catch_warnings():  # newer versions of PyTorch warn that it is deprecated
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Colors(), images), folder / "colors.pt")
    (folder / "names.txt").write_text("\n".join(NAMES))
    return {"pt2": str(folder / "colors.pt2"), "torchscript": str(folder / "colors.pt")}, str(folder / "names.txt")


@pytest.mark.parametrize("kind", ["pt2", "torchscript"])
@pytest.mark.slow
def test_a_program_gives_its_boxes_and_scores(files, kind):
    programs, names = files
    text = f"{kind}:{programs[kind]}?run_code=1&classes={names}&imgsz=64"
    images = torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8)
    images[0, 0, 8:16, 24:32] = 204
    images[2, 2, 40:48, 0:8] = 102
    teacher = open_teacher(text, ("blue", "red"))
    assert teacher.detector.about == (
        "takes 64x64 px, stretch, RGB, (value - 0) / 1",
        "gives final boxes (layout boxes)",
    )
    found, _ = teacher.to("cpu").observe(batch_of(images))
    assert (found.boxes[0, 0].tolist(), found.boxes[2, 0].tolist()) == ([24, 8, 32, 16], [0, 40, 8, 48])
    assert found.logits[0, 0].sigmoid().tolist() == pytest.approx([1e-4, 0.8], rel=1e-3)
    assert found.logits[2, 0].sigmoid().tolist() == pytest.approx([0.4, 1e-4], rel=1e-3)
    dense = open_teacher(f"{text}&strides=8", ("blue", "red"))
    assert dense.detector.about[1] == "gives predictions at 64 places of strides 8 (layout boxes)"


@pytest.mark.parametrize("kind", ["pt2", "torchscript"])
def test_what_is_not_trusted_or_not_understood_is_refused(files, kind, tmp_path, caplog):
    programs, _ = files
    with pytest.raises(UserError, match=r"can run any code on this machine .*: add \?run_code=1 if you trust"):
        open_teacher(f"{kind}:{programs[kind]}", NAMES)
    with pytest.raises(UserError, match="there is no file nowhere"):
        open_teacher(f"{kind}:nowhere?run_code=1", NAMES)
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(UserError, match="PyTorch cannot load it"):
        open_teacher(f"{kind}:{tmp_path / 'text.pt'}?run_code=1", NAMES)
    assert caplog.text == ""  # torch.export logs a traceback
    assert logging.root.manager.disable == logging.NOTSET
    with pytest.raises(UserError, match="expected the names of its 3 classes, found none in its metadata"):
        open_teacher(f"{kind}:{programs[kind]}?run_code=1&imgsz=64", NAMES)
    with pytest.raises(
        UserError, match="it cannot take images of 32x32|takes images of 64x64 pixels only|known layouts"
    ):
        open_teacher(f"{kind}:{programs[kind]}?run_code=1&imgsz=32&classes=coco80", NAMES)


def test_outputs_are_named_by_their_keys_or_by_the_layout():
    one, other = torch.zeros(1, 4, 3), torch.ones(1, 4, 16)
    named = {"a": one, "b": other}
    for text, made, names in (
        ("pt2:a.pt2", one, ["output0"]),
        ("pt2:a.pt2", (one, other), ["output0", "output1"]),
        ("pt2:a.pt2", named, ["a", "b"]),
        ("pt2:a.pt2?layout=distributions", [one, other], ["scores", "distributions"]),
    ):
        assert list(_named(parse_uri(text), lambda images, made=made: made)(one)) == names
    with pytest.raises(UserError, match="expected tensors as its outputs"):
        _named(parse_uri("pt2:a.pt2"), lambda images: ([one], [other]))(one)
