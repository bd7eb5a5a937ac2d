"""The program beside an ONNX file opens images as Ladle does."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from ladle.data import load_image
from ladle.exporting.script import SCRIPT


def opened(file):
    program = {"__name__": "infer"}
    exec(compile(SCRIPT, "infer.py", "exec"), program)
    return np.asarray(program["open_image"](file, (0, 65535)))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "deep.png", "deep.tif"])
def test_an_image_is_turned_as_in_training(tmp_path, orientation, kind):
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"a.{kind}"
    pixels = values if "deep" in kind else (values >> 8).astype(np.uint8)
    Image.fromarray(pixels).save(file, exif=exif)
    assert np.array_equal(opened(str(file)), load_image(file).permute(1, 2, 0).numpy())


def test_numbers_with_a_point_are_refused(tmp_path):
    Image.new("F", (5, 3)).save(tmp_path / "a.tif")
    with pytest.raises(SystemExit, match=r"a\.tif: expected 8 or 16 bits a channel"):
        opened(str(tmp_path / "a.tif"))
