"""Recorded predictions find their images by id, or by the names of files as far as these tell images apart."""

import json

import numpy as np
import pytest
from PIL import Image

from ladle.data import read
from ladle.data.sources import DatasetSource
from ladle.errors import UserError
from ladle.recipes.recorded import beside
from ladle.teachers import open_teacher

FILES = ("a/1.png", "b/1.png", "b/2.png")


@pytest.fixture
def source(tmp_path):
    """Three images in two folders, two of them of one name."""
    for number, name in enumerate(FILES):
        for kind in ("images", "labels"):
            (tmp_path / kind / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 60 * number, np.uint8)).save(tmp_path / "images" / "val" / name)
        (tmp_path / "labels" / "val" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/val\nval: images/val\nnames: [red]\n")
    return DatasetSource(read(str(tmp_path), "val"))


def found(source, tmp_path, names):
    """The left side of each image's recorded boxes, by its file; ``names`` are those in the recording, in order."""
    rows = [
        {"file_name": name, "category_id": 0, "bbox": [10 * number, 0, 9, 9], "score": 0.5}
        for number, name in enumerate(names, start=1)
    ]
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(rows))
    teacher = open_teacher(str(file), ["red"], [0])
    views = beside(source, teacher, str(file))
    each = {}
    for index, image in enumerate(source.dataset.images):
        sample = views.sample(index)
        each["/".join(image.file.parts[-2:])] = sample.boxes[sample.labels < 0][:, 0].tolist()
    return each


@pytest.mark.parametrize(
    ("names", "lefts"),
    [
        (["a/1.png", "b/1.png", "b/2.png"], [[10.0], [20.0], [30.0]]),
        (["val/b/1.png", "images/val/a/1.png"], [[20.0], [10.0], []]),
        (["./b/1.png", "2.png"], [[], [10.0], [20.0]]),
        (["elsewhere/2.png", "a/1.png"], [[20.0], [], [10.0]]),
        (["2"], [[], [], [10.0]]),
    ],
)
def test_names_with_folders_tell_images_apart(source, tmp_path, names, lefts):
    assert found(source, tmp_path, names) == dict(zip(FILES, lefts, strict=True))


@pytest.mark.parametrize("name", ["1.png", "elsewhere/1.png", "1"])
def test_a_name_that_may_be_that_of_several_images_is_refused(source, tmp_path, name):
    with pytest.raises(UserError, match=rf"its '{name}' may be .*a/1\.png or .*b/1\.png: name the images by image_id"):
        found(source, tmp_path, [name])
