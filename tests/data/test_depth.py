"""Values of 16 bits become the bytes that the range of the data set says, in every layout."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from ladle.data import load_image
from ladle.data.depth import ALL_VALUES, extremes, fitting, parse_range
from ladle.data.images import read_header
from ladle.errors import UserError
from tests.data.png import GREY, GREY_ALPHA, RGB, RGBA, chunk, png, tiff

TWELVE = (0, 4095)


def image(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    return tmp_path / "a"


def bytes_of(values, low, high):
    """What the documentation says, in slow."""
    return [max(0, min(255, round((value - low) * 255 / (high - low)))) for value in np.ravel(values).tolist()]


def some(bands, most=4096):
    return np.random.default_rng(0).integers(0, most, (5, 7, bands)).astype(np.uint16)


@pytest.mark.parametrize(
    ("value_range", "expected"),
    [
        (TWELVE, [0, 0, 1, 128, 255, 255, 255]),
        (ALL_VALUES, [0, 0, 0, 8, 16, 16, 255]),
        ((1000, 3000), [0, 0, 0, 134, 255, 255, 255]),
        ((0, 255), [0, 8, 9, 255, 255, 255, 255]),
    ],
)
def test_a_range_determines_black_and_white(tmp_path, value_range, expected):
    values = np.array([[0, 8, 9, 2048, 4095, 4096, 65535]], dtype=np.uint16)
    loaded = load_image(image(tmp_path, png(values)), value_range=value_range)
    assert loaded[:, 0].tolist() == [expected] * 3


def test_all_sixteen_bits_are_divided_by_257(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    loaded = load_image(image(tmp_path, png(values)))[0]
    assert loaded.flatten().tolist() == [round(value / 257) for value in range(65536)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [12, 16])
def test_colors_of_a_tiff_are_read_to_their_last_bit(tmp_path, order, bits):
    values = some(3, 2**bits)
    file = image(tmp_path, tiff(values, order))
    assert extremes(file) == (values.min(), values.max())
    loaded = load_image(file, value_range=(0, 4095)).permute(1, 2, 0)
    assert loaded.flatten().tolist() == bytes_of(values, 0, 4095)


def test_colors_of_a_png_are_read_to_their_last_bit(tmp_path):
    values = some(3)
    file = image(tmp_path, png(values, RGB))
    assert extremes(file) == (values.min(), values.max())
    assert load_image(file, value_range=TWELVE).permute(1, 2, 0).flatten().tolist() == bytes_of(values, *TWELVE)
    assert torch.equal(load_image(file).permute(1, 2, 0), torch.from_numpy((values >> 8).astype(np.uint8)))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_compressed_grey_tiff_is_read_to_its_last_bit(tmp_path, compression):
    values = some(1)[..., 0]
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    assert load_image(tmp_path / "a.tif", value_range=TWELVE)[1].flatten().tolist() == bytes_of(values, *TWELVE)


@pytest.mark.parametrize(("color", "bands"), [(GREY_ALPHA, 2), (RGBA, 4)])
def test_transparency_of_sixteen_bits_is_laid_on_white(tmp_path, color, bands):
    values = some(bands)
    values[..., -1] = np.where(np.arange(35).reshape(5, 7) % 2, 65535, 0)
    loaded = load_image(image(tmp_path, png(values, color)), value_range=TWELVE).permute(1, 2, 0)
    seen = values[..., -1] == 65535
    colors = values[..., :-1] if color == RGBA else values[..., :1].repeat(3, axis=2)
    assert loaded[torch.from_numpy(seen)].flatten().tolist() == bytes_of(colors[seen], *TWELVE)
    assert (loaded[torch.from_numpy(~seen)] == 255).all()


def test_a_transparent_value_of_sixteen_bits_is_white(tmp_path):
    values = np.array([[7, 700, 4000]], dtype=np.uint16)
    file = image(tmp_path, png(values, GREY, chunk(b"tRNS", struct.pack(">H", 700))))
    assert load_image(file, value_range=TWELVE)[0].tolist() == [[0, 255, 249]]


@pytest.mark.parametrize(
    ("largest", "high"),
    [(0, 255), (255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4096, 16383), (16383, 16383), (16384, 65535)],
)
def test_the_fewest_bits_of_a_sensor_that_hold_every_value(largest, high):
    assert fitting(largest) == (0, high)


@pytest.mark.parametrize(("text", "found"), [("0,4095", (0, 4095)), (" 7000 , 9000 ", (7000, 9000))])
def test_a_range_is_two_numbers(text, found):
    assert parse_range(text) == found


@pytest.mark.parametrize(
    "text", ["", "4095", "4095,0", "0,0", "-1,5", "0,65536", "a,b", "0,1,2", "0.5,1", "\u0660,\u0665"]
)
def test_anything_else_is_no_range(text):
    with pytest.raises(UserError, match=r"--value-range .*such as 0,4095"):
        parse_range(text)


def test_the_header_has_the_depth_of_an_image(tmp_path):
    deep = [png(some(1)), png(some(2), GREY_ALPHA), png(some(3), RGB), png(some(4), RGBA), tiff(some(3), ">")]
    flat = [png(some(1, 255).astype(np.uint8)), png(some(3, 255).astype(np.uint8), RGB)]
    assert [read_header(image(tmp_path, content)).deep for content in deep] == [True] * 5
    assert [read_header(image(tmp_path, content)).deep for content in flat] == [False] * 2
    for kind in ("JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        Image.new("RGB", (8, 8)).save(tmp_path / "b", format=kind)
        assert not read_header(tmp_path / "b").deep


def test_sixteen_bits_in_separate_planes_are_refused_not_misread(tmp_path):
    with pytest.raises(UserError, match="16 bits in separate planes: save it interleaved"):
        load_image(image(tmp_path, tiff(some(3), separate=True)))
    with pytest.raises(UserError, match="16 bits in separate planes"):
        read_header(tmp_path / "a")


def test_values_with_a_sign_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), -5, dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="without a sign, found 32 bits or a sign"):
        load_image(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: expected .* without a sign"):
        read_header(tmp_path / "a.tif")  # and so before anything is trained on
