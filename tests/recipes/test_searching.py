"""The image files given by a file, a folder or a pattern."""

import os
import shutil
from pathlib import Path

import pytest

from ladle.errors import UserError
from ladle.recipes.searching import find_images


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def found(*sources):
    return [file.as_posix() for file in find_images(sources).files]


def passed_over(*sources):
    return sorted(file.as_posix() for file in find_images(sources).passed_over)


def test_a_folder_is_searched_recursively_for_images_in_order():
    lay("p/b.jpg", "p/a.PNG", "p/sub/deep/c.webp", "p/notes.txt", "p/none")
    assert found("p") == ["p/a.PNG", "p/b.jpg", "p/sub/deep/c.webp"]


def test_a_file_may_have_any_suffix_and_comes_once():
    lay("p/a.jpg", "p/photo", "b.jpg")
    assert found("p/photo", "b.jpg", "p", "./b.jpg", "p/a.jpg") == ["p/photo", "b.jpg", "p/a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("[ab].jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "q/c.jpg", "q[1]/d.jpg"]),
        ("q*", ["q/c.jpg", "q[1]/d.jpg"]),
        ("q[1]/*.jpg", ["q[1]/d.jpg"]),
        ("q[1]", ["q[1]/d.jpg"]),
        ("q[1]/d.jpg", ["q[1]/d.jpg"]),
        ("q[12]", None),
    ],
)
def test_a_pattern_names_what_it_matches_and_a_real_name_comes_first(pattern, expected):
    lay("a.jpg", "b.jpg", "q/c.jpg", "q[1]/d.jpg", "readme.txt")
    if expected is None:
        with pytest.raises(UserError, match="found no image"):
            find_images([pattern])
    else:
        assert found(pattern) == expected


@pytest.mark.parametrize("name", ["[x].jpg", "a*b.jpg", "a?b.jpg", "c=1.jpg", "-x.jpg", "a b.jpg", "~.jpg", "null.jpg"])
def test_a_file_of_any_name_is_found(name):
    lay(name)
    assert found(name) == found(".") == [name]


def test_links_are_followed_and_circles_end():
    lay("store/a.jpg", "store/more/b.jpg", "other/c.jpg", "p/d.jpg")
    Path("p/store").symlink_to(Path("store").resolve(), target_is_directory=True)
    Path("p/one.jpg").symlink_to(Path("other/c.jpg").resolve())
    Path("store/more/back").symlink_to(Path("p").resolve(), target_is_directory=True)
    assert found("p") == ["p/d.jpg", "p/one.jpg", "p/store/a.jpg", "p/store/more/b.jpg"]


def test_a_broken_link_counts_as_an_image():
    lay("p/a.jpg")
    Path("p/gone.jpg").symlink_to("nowhere.jpg")
    assert found("p") == ["p/a.jpg", "p/gone.jpg"]


def test_hidden_companions_of_images_are_skipped_and_listed():
    lay("p/a.jpg", "p/._a.jpg", "p/__MACOSX/._b.jpg", "p/__MACOSX/c.jpg", "p/.thumbs/d.jpg", "p/.notes")
    assert found("p") == ["p/a.jpg"]
    assert passed_over("p") == ["p/._a.jpg", "p/.thumbs/d.jpg", "p/__MACOSX/._b.jpg", "p/__MACOSX/c.jpg"]
    assert found("p", "p/._a.jpg") == ["p/a.jpg", "p/._a.jpg"]
    assert "p/._a.jpg" not in passed_over("p", "p/._a.jpg")


def test_a_hidden_folder_that_is_named_is_searched():
    lay(".cache/shots/a.jpg")
    assert found(".cache") == [".cache/shots/a.jpg"]
    assert found(".cache/*") == [".cache/shots/a.jpg"]


def test_a_pipe_is_never_waited_for():
    lay("p/a.jpg")
    os.mkfifo("p/b.jpg")
    assert found("p") == ["p/a.jpg"]
    assert passed_over("p") == ["p/b.jpg"]
    with pytest.raises(UserError, match=r"p/b\.jpg"):
        find_images(["p/b.jpg"])


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere/*.jpg", "p", "p/*.jpg"])
def test_a_source_without_an_image_is_refused_even_among_others(source):
    lay("a.jpg", "p/._b.jpg", "p/notes.txt")
    with pytest.raises(UserError, match="found no image there") as caught:
        find_images(["a.jpg", source])
    assert str(caught.value).startswith(f"{source}: ")


def test_a_folder_that_cannot_be_read_is_an_error(monkeypatch):
    lay("p/a.jpg", "p/sub/b.jpg")
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="sub"):
        find_images(["p"])


def test_a_file_system_of_another_encoding_is_no_obstacle():
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        lay(f"p/{name}")
    except OSError:
        shutil.rmtree("p", ignore_errors=True)
        lay("p/café.jpg")
    assert len(found("p")) == 1


def test_links_that_go_round_do_not_repeat_what_a_pattern_matches():
    lay("p/a.jpg", "p/sub/b.jpg", "q/c.jpg")
    for link in ("p/sub/one", "p/sub/two", "p/three"):  # each of them is a cycle
        Path(link).symlink_to(Path("p").resolve(), target_is_directory=True)
    Path("p/far").symlink_to(Path("q").resolve(), target_is_directory=True)
    assert found("p/**/*.jpg") == found("p/**") == ["p/a.jpg", "p/far/c.jpg", "p/sub/b.jpg"]
    assert found("p/**/sub/*.jpg") == found("**/sub/**/b.jpg") == ["p/sub/b.jpg"]


def test_images_of_unsupported_formats_are_separate_from_hidden_ones():
    lay("p/a.jpg", "p/b.heic", "p/._c.heic", "p/d.JFIF", "p/e.txt", "q/f.avif")
    search = find_images(["p"])
    assert [file.as_posix() for file in search.unread] == ["p/b.heic", "p/d.JFIF"]
    assert passed_over("p") == ["p/._c.heic"]
    assert found("p/d.JFIF") == ["p/d.JFIF"]  # a file given by name is read whatever its suffix
    with pytest.raises(UserError, match="found no image there, 1 files of formats that are not read"):
        find_images(["q"])
