import os
import socket

import pytest

from ladle.errors import UserError
from ladle.files import open_regular, read_regular


def test_a_regular_file_is_read_whole(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"three")
    (tmp_path / "link.txt").symlink_to(file)
    with open_regular(tmp_path / "link.txt") as stream:
        assert stream.read() == b"three"
    assert read_regular(file, 5) == b"three"


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "sparse.json"
    with file.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(UserError, match=r"sparse\.json: expected at most 3 MB"):
        read_regular(file, 3 * 2**20)


@pytest.mark.parametrize(
    ("kind", "found"), [("pipe", "a pipe"), ("folder", "a folder"), ("socket", "a socket"), ("nothing", "no file")]
)
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, monkeypatch, kind, found):
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        make = {"pipe": os.mkfifo, "folder": os.mkdir, "socket": listener.bind, "nothing": str}
        make[kind]("here.json")
        with pytest.raises(UserError, match=rf"here\.json: expected a file.*found {found}") as error:
            open_regular(tmp_path / "here.json")
        assert str(error.value).count("expected") == 1


def test_a_device_is_named_and_not_opened(tmp_path):
    (tmp_path / "a.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"a\.json: expected a file, found a device"):
        open_regular(tmp_path / "a.json")


def test_a_name_with_a_null_byte_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="null"):
        open_regular(tmp_path / "a\0.json")
