from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from ladle.data import image_size, load_image
from ladle.data.images import read_header
from ladle.errors import UserError

TORTURE = Path(__file__).parent / "torture" / "images"


def pixel(file: Path, x: int, y: int) -> list[int]:
    return load_image(file)[:, y, x].tolist()


def corner_image(folder: Path, kind: str, orientation: int) -> tuple[Path, np.ndarray]:
    """An image with an orientation, and which of its stored pixels are bright: those of the top left corner."""
    bright = np.zeros((8, 16), dtype=bool)
    bright[:4, :8] = True
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = folder / f"a.{kind}"
    values = bright * np.uint16(65535) if kind == "deep.tif" else np.repeat(bright[..., None], 3, 2) * np.uint8(255)
    Image.fromarray(values).save(file, exif=exif)
    return file, bright


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = load_image(TORTURE / "gray16.png").unique().tolist()
    assert values == [78, 233]


def test_transparent_pixels_are_white():
    assert pixel(TORTURE / "rgba.png", 0, 0) == [255, 255, 255]


def test_two_colors_are_black_and_white():
    assert load_image(TORTURE / "bilevel.png").unique().tolist() == [0, 255]


def test_an_animation_shows_its_first_frame():
    assert load_image(TORTURE / "anim.gif").float().mean() > 100


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16"])
def test_every_mode_becomes_three_bytes_a_pixel(tmp_path, mode):
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "LAB", "I;16") else ".png"
    image = Image.new(mode if mode != "HSV" else "RGB", (5, 3))
    image.save(tmp_path / f"a{suffix}")
    loaded = load_image(tmp_path / f"a{suffix}")
    assert loaded.shape == (3, 3, 5)
    assert loaded.dtype == torch.uint8
    assert loaded.is_contiguous()


def test_thirty_two_bits_are_refused(tmp_path):
    Image.new("F", (5, 3)).save(tmp_path / "depth.tif")
    with pytest.raises(UserError, match=r"depth\.tif: expected 8 or 16 bits"):
        load_image(tmp_path / "depth.tif")


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 99])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_size_and_pixels_agree_on_which_way_is_up(tmp_path, orientation, suffix):
    file, _ = corner_image(tmp_path, suffix, orientation)
    loaded = load_image(file)
    assert image_size(file) == tuple(loaded.shape[1:])
    top, left = {2: (0, 1), 3: (1, 1), 4: (1, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}.get(orientation, (0, 0))
    height, width = loaded.shape[1:]
    corner = (top * (height - 1), left * (width - 1))
    assert loaded[0][corner] > 200
    assert loaded.float().mean() < 100


def test_a_image_is_left_lying_on_request(tmp_path):
    assert load_image(TORTURE / "exif6.jpg", upright=False).shape == (3, 96, 64)
    assert load_image(TORTURE / "exif6.jpg").shape == (3, 64, 96)


def test_the_size_is_read_without_decoding():
    assert image_size(TORTURE / "truncated.png") == (64, 96)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("truncated.jpg", "damaged"),
        ("bitflip.png", "damaged"),
        ("html.jpg", "no image"),
        ("bomb_16000x16000.png", "bomb"),
        ("sub dir", "folder"),
        ("nowhere.jpg", "no file"),
    ],
)
def test_what_is_no_image_is_named(name, found):
    with pytest.raises(UserError, match=f"{name}: .*{found}"):
        load_image(TORTURE / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "deep.tif"])
def test_the_stored_frame_is_read_as_stored(tmp_path, orientation, kind):
    file, bright = corner_image(tmp_path, kind, orientation)
    header = read_header(file)
    assert (header.height, header.width, header.lying) == (8, 16, orientation >= 5)
    assert ((load_image(file, upright=False)[0] > 128).numpy() == bright).all()
