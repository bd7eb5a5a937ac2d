"""Only image files of the formats on offer are opened, and what is wrong with one is said as it is."""

import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, ExifTags, Image, PngImagePlugin

from ladle.data import image_size, load_image
from ladle.data.raster import FORMATS
from ladle.errors import UserError
from tests.data.png import GREY, chunk, png

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
LONG = zlib.compress(b"x" * 3_000_000, 9)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(run) print\n%%EOF\n"


def assert_refused(file, found):
    for read in (load_image, image_size):
        with pytest.raises(UserError, match=rf"{file.name}: .*{found}"):
            read(file)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.eps", "a"])
def test_a_program_in_postscript_is_refused_and_never_run(tmp_path, monkeypatch, name):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("the program was run"))
    (tmp_path / name).write_bytes(EPS)
    assert_refused(tmp_path / name, "no image of a format that is read")


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "JPEG2000", "ICNS", "PDF", "SGI"])
def test_other_formats_of_pillow_are_refused_whatever_they_are_called(tmp_path, kind):
    Image.new("RGB", (64, 64)).save(tmp_path / "real", format=kind)
    (tmp_path / "real").rename(tmp_path / "a.jpg")
    assert_refused(tmp_path / "a.jpg", f"no image of a format that is read .{', '.join(FORMATS)}")


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_on_offer_is_read_under_any_name(tmp_path, kind):
    Image.new("RGB", (40, 20), (255, 255, 255)).save(tmp_path / "real", format=kind)
    (tmp_path / "real").rename(tmp_path / "a.txt")
    assert load_image(tmp_path / "a.txt").tolist() == torch.full((3, 20, 40), 255).tolist()
    assert image_size(tmp_path / "a.txt") == (20, 40)


def link_to_zero(name):
    Path(name).symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        make = {"pipe": os.mkfifo, "socket": listener.bind, "folder": os.mkdir, "device": link_to_zero}
        make[kind]("a.png")
        assert_refused(tmp_path / "a.png", f"a {kind}")


def test_a_link_to_a_image_is_read_and_an_empty_file_is_named(tmp_path):
    (tmp_path / "real.png").write_bytes(png(PIXELS))
    (tmp_path / "link.png").symlink_to("real.png")
    assert load_image(tmp_path / "link.png")[0].tolist() == PIXELS.tolist()
    (tmp_path / "nothing.png").touch()
    assert_refused(tmp_path / "nothing.png", "an empty file")


def exif(orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return chunk(b"eXIf", tags.tobytes().removeprefix(b"Exif\0\0"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (chunk(b"zTXt", b"parameters\0\0" + LONG), b""),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG), b""),
        (chunk(b"iCCP", b"printer\0\0" + LONG), b""),
        (b"", chunk(b"zTXt", b"parameters\0\0" + LONG)),
        (b"".join(chunk(b"tEXt", b"a%d\0" % n + b"x" * 1000) for n in range(9)), b""),
        (chunk(b"gAMA", b"\0"), b""),
    ],
    ids=["compressed text", "xmp", "color profile", "text behind the pixels", "many texts", "half a gamma"],
)
def test_a_valid_png_is_read_with_any_other_chunks(tmp_path, monkeypatch, before, after):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 8000)  # instead of 64 MB
    (tmp_path / "a.png").write_bytes(png(PIXELS, GREY, exif(6) + before, after))
    assert load_image(tmp_path / "a.png", upright=False)[0].tolist() == PIXELS.tolist()
    assert load_image(tmp_path / "a.png")[2].tolist() == np.rot90(PIXELS, -1).tolist()
    assert image_size(tmp_path / "a.png") == (4, 3)


def test_a_png_with_long_texts_may_be_transparent(tmp_path):
    key = chunk(b"tRNS", struct.pack(">H", 5)) + chunk(b"zTXt", b"a\0\0" + LONG)
    (tmp_path / "a.png").write_bytes(png(PIXELS, GREY, key))
    assert load_image(tmp_path / "a.png")[0].tolist() == np.where(PIXELS == 5, 255, PIXELS).tolist()


def test_a_png_with_long_texts_and_too_few_pixels_is_damaged(tmp_path):
    whole = png(PIXELS, GREY, chunk(b"zTXt", b"a\0\0" + LONG))
    (tmp_path / "a.png").write_bytes(whole[:-24])
    with pytest.raises(UserError, match=r"a\.png: expected a whole image, found a damaged one"):
        load_image(tmp_path / "a.png")


def test_a_broken_header_is_reported_as_damage(tmp_path):
    whole = bytearray(png(PIXELS))
    whole[20] ^= 1
    (tmp_path / "a.jpg").write_bytes(whole)
    assert_refused(tmp_path / "a.jpg", "a damaged one .*checksum in b'IHDR'")


def test_too_many_pixels_are_reported_with_the_limit(tmp_path):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(whole)
    assert_refused(tmp_path / "a.png", "too large a one, cut it into tiles .*400000000 pixels.*178956970.*bomb")


def test_memory_that_runs_out_is_called_that(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(PIXELS))

    def full(*_):
        raise MemoryError

    monkeypatch.setattr("ladle.data.images._rgb", full)
    with pytest.raises(UserError, match=r"a\.png: .*found one that does not fit into memory"):
        load_image(tmp_path / "a.png")
