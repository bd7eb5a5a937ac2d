import pytest

from ladle.data.finding import find_root
from ladle.data.folders import images_of, is_companion, list_folder
from ladle.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def below(folder):
    return [file.relative_to(folder).as_posix() for file in list_folder(folder).files]


def said(folder):
    return {defect.file: defect.what for defect in list_folder(folder).defects}


def test_files_come_in_the_order_of_their_paths_with_those_behind_links(tmp_path):
    touch(tmp_path / "set", "b/2.jpg", "a.jpg")
    touch(tmp_path / "store", "deep/1.jpg")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "store", target_is_directory=True)
    assert below(tmp_path / "set") == ["a.jpg", "b/2.jpg", "more/deep/1.jpg"]
    assert said(tmp_path / "set") == {}


def test_a_folder_that_several_links_reach_is_read_once_and_loops_are_not_followed(tmp_path):
    touch(tmp_path, "set/inner/1.jpg", "outside.jpg")
    for name, target in {"again": "set/inner", "loop": "set", "up": ".", "self": "set/self"}.items():
        (tmp_path / "set" / name).symlink_to(tmp_path / target)
    (tmp_path / "set" / "inner" / "back").symlink_to(tmp_path / "set")
    assert below(tmp_path / "set") == ["inner/1.jpg"]
    assert {name: what.partition(";")[0] for name, what in said(tmp_path / "set").items()} == {
        "again": "link to a folder that is read already",
        "inner/back": "link to a folder that holds this one",
        "loop": "link to a folder that holds this one",
        "up": "link to a folder that holds this one",
        "self": "link that leads nowhere",
    }


def test_companions_of_operating_systems_are_passed_over_and_other_hidden_files_are_named(tmp_path):
    companions = ["._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/b.jpg", ".ipynb_checkpoints/c.jpg"]
    touch(tmp_path, "a.jpg", "@eaDir/d.jpg", ".git/e.jpg", *companions)
    assert below(tmp_path) == ["a.jpg"]
    assert said(tmp_path) == {}
    touch(tmp_path, ".hidden.jpg", ".private/f.jpg", ".note")
    assert said(tmp_path) == {".hidden.jpg": "hidden; left out", ".private": "hidden; left out"}
    assert not is_companion("a.jpg")


def test_images_that_are_not_read_are_named(tmp_path):
    touch(tmp_path, "a.jpg", "b.heic", "c.mp4", "notes.md", "a.txt")
    assert [file.name for file in images_of(list_folder(tmp_path).files)] == ["a.jpg"]
    assert said(tmp_path) == {
        "b.heic": "files .heic are not read; left out",
        "c.mp4": "files .mp4 are not read; left out",
    }


def test_a_tree_without_end_is_refused(tmp_path):
    touch(tmp_path, *(f"{n}.jpg" for n in range(5)))
    with pytest.raises(UserError, match="at most 4 files"):
        list_folder(tmp_path, most=4)


def test_the_folder_with_most_of_the_images_is_found(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/b.jpg")
    finder = find_root([tmp_path / "none", tmp_path / "one", tmp_path / "two"], ["a.jpg", "b.jpg"])
    assert finder.find("b.jpg") == tmp_path / "two" / "b.jpg"
    assert finder.note == ""


def test_folders_of_another_machine_are_dropped_from_all_names_alike(tmp_path):
    touch(tmp_path, "obj/a.jpg", "obj/b.jpg", "c.jpg")
    finder = find_root([tmp_path], ["data/obj/a.jpg", "data\\obj\\b.jpg", "data/c.jpg"])
    assert finder.find("data\\obj\\b.jpg") == tmp_path / "obj" / "b.jpg"
    assert "first folder of the file names was passed over" in finder.note
    with pytest.raises(UserError, match="found none"):
        finder.find("data/obj/c.jpg")


def test_images_in_nested_folders_are_found_by_name_unless_two_share_it(tmp_path):
    touch(tmp_path, "x/1/a.jpg", "x/2/b.jpg", "x/1/c.jpg", "x/2/c.jpg")
    finder = find_root([tmp_path / "x"], ["a.jpg", "b.jpg", "elsewhere/2/c.jpg"], below=tmp_path)
    assert finder.find("a.jpg") == tmp_path / "x" / "1" / "a.jpg"
    assert finder.find("elsewhere/2/c.jpg") == tmp_path / "x" / "2" / "c.jpg"
    assert "by their names alone" in finder.note
    with pytest.raises(UserError, match=r"expected one image of this name below .*, found x/1/c\.jpg and x/2/c\.jpg"):
        finder.find("c.jpg")


@pytest.mark.parametrize(
    "name", ["/x/a.jpg", "../x/a.jpg", "x/../../a.jpg", "C:\\x\\a.jpg", "\\\\host\\a.jpg", "", "y" * 2000]
)
def test_no_way_of_finding_leads_out(tmp_path, name):
    touch(tmp_path, "set/x/a.jpg", "a.jpg")
    finder = find_root([tmp_path / "set"], ["deep/x/a.jpg", "deep/x/a.jpg", name], below=tmp_path / "set")
    with pytest.raises(UserError, match="expected"):
        finder.find(name)
    index = find_root([tmp_path / "set"], ["q/r/s/t/u/v/a.jpg"], below=tmp_path / "set")
    with pytest.raises(UserError, match="expected"):
        index.find(name)
