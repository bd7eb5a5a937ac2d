"""Headers of a large data set are read once, and again where a file has changed."""

import os

import pytest
from PIL import Image

from ladle.data import header_cache
from ladle.data.header_cache import cached_headers
from ladle.data.images import Header
from ladle.errors import UserError


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Two images and a cache for them; lists the files that are opened."""
    for name, size in (("a.png", (3, 2)), ("b.png", (5, 4))):
        Image.new("RGB", size).save(tmp_path / name)
    files, plain = [], header_cache.read_header
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(header_cache, "_LEAST", 2)
    monkeypatch.setattr(header_cache, "read_header", lambda file: (files.append(file.name), plain(file))[1])
    return files


def headers(folder, names=("a.png", "b.png")):
    with cached_headers(folder / "train.json", len(names)) as read:
        return [read(folder / name) for name in names]


def test_files_are_opened_once(opened, tmp_path):
    first = headers(tmp_path)
    assert first == [Header(2, 3, False), Header(4, 5, False)]
    assert headers(tmp_path) == first
    assert opened == ["a.png", "b.png"]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["a.png", "b.png"]


@pytest.mark.parametrize("what", ["size", "time"])
def test_a_file_that_has_changed_is_opened_again(opened, tmp_path, what):
    headers(tmp_path)
    status = (tmp_path / "b.png").stat()
    Image.new("RGB", (6, 4) if what == "time" else (700, 4)).save(tmp_path / "b.png")
    os.utime(tmp_path / "b.png", ns=(0, status.st_mtime_ns + (what == "time")))
    assert headers(tmp_path)[1] == Header(4, 6 if what == "time" else 700, False)
    assert opened == ["a.png", "b.png", "b.png"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_damaged_cache_is_made_anew(opened, tmp_path, content):
    first = headers(tmp_path)
    (place,) = (tmp_path / "cache" / "ladle").iterdir()
    place.write_bytes(content)
    assert headers(tmp_path) == first
    assert headers(tmp_path) == first
    assert opened == ["a.png", "b.png"] * 2


def test_without_a_folder_that_can_be_written_every_file_is_opened(opened, tmp_path):
    (tmp_path / "cache").write_text("a file is in its place")
    assert headers(tmp_path) == headers(tmp_path)
    assert opened == ["a.png", "b.png"] * 2


def test_few_images_are_not_worth_a_file(opened, tmp_path):
    headers(tmp_path, ["a.png"])
    assert not (tmp_path / "cache").exists()


def test_a_missing_file_is_a_mistake_that_names_it(opened, tmp_path):
    with pytest.raises(UserError, match=r"c\.png: expected a file that can be read, found no file"):
        headers(tmp_path, ["a.png", "c.png"])
