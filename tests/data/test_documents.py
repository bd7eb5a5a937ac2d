import time

import pytest

from ladle.data.documents import read_json, read_text
from ladle.data.xml_files import read_xml
from ladle.data.yaml_files import read_yaml
from ladle.errors import UserError

THING = "<annotation><object><name>%s</name></object></annotation>"


def written(folder, name, content):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    for content in ("é 1\r\n", "\ufeffé 1\r\n"):
        assert read_text(written(tmp_path, "a.txt", content)).split() == ["é", "1"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("0 0.5\n".encode("utf-16"), "UTF-16, as PowerShell"),
        ("0 0.5\n".encode("utf-32"), "UTF-32"),
        (b"0 0.5\n1 0.5\xa0\n", "the byte 0xa0 in line 2"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, found):
    with pytest.raises(UserError, match=rf"a\.txt: expected UTF-8 text, found {found}"):
        read_text(written(tmp_path, "a.txt", content))


def test_a_key_with_two_values_is_refused_and_one_that_is_only_repeated_is_not(tmp_path):
    assert read_json(written(tmp_path, "a.json", '{"a": {"id": 1, "id": 1}}')) == {"a": {"id": 1}}
    with pytest.raises(UserError, match=r"a\.json.*'id' twice, as 1 and 2"):
        read_json(written(tmp_path, "a.json", '{"a": {"id": 1, "b": 0, "id": 2}}'))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "an empty file"),
        (b"\0" * 500, "zeros"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": ' + "9" * 5000 + "}", "4300 digits"),
        ('{"a": 1', "delimiter"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_what_is_no_json_is_one_sentence(tmp_path, content, why):
    with pytest.raises(UserError, match=rf"a\.json: expected .*{why}") as caught:
        read_json(written(tmp_path, "a.json", content))
    assert "\n" not in str(caught.value)


def test_yaml_is_read_as_it_is_written(tmp_path):
    text = (
        "n: [yes, no, on, 007, 010, 1e3, null, ~, 12:30, 2001-01-01, 0x1F, .inf, 'a b', \"c\\td\"]\nm: {0: off, 1: }\n"
    )
    names = ["yes", "no", "on", "007", "010", "1e3", "null", "~", "12:30", "2001-01-01", "0x1F", ".inf"]
    assert read_yaml(written(tmp_path, "a.yaml", text)) == {"n": [*names, "a b", "c\td"], "m": {"0": "off", "1": ""}}


def test_small_aliases_stand_for_what_they_name(tmp_path):
    text = "train: &t [a, b]\nval: *t\n"
    assert read_yaml(written(tmp_path, "a.yaml", text)) == {"train": ["a", "b"], "val": ["a", "b"]}


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' twice, the second time at line 3"),
        ("names: {0: cat, 0: dog}", "'0' twice"),
        ("!!python/object/apply:os.system ['touch x']", "the tag"),
        ("nc: !!set {a: null}", "the tag"),
        ("? [a]\n: b", "the key"),
        ("<<: {a: b}", "the key '<<'"),
        ("a: &a [*a]", r"alias \*a"),
        (LAUGHS, "more than 200000 values"),
        ("{a: " * 5000, "nested"),
        ("[" * 5000, "nest"),
        ("- a\n--- \n- b", "several documents"),
        ("a: \x01", "control|special"),
        ("a: b: c", "mapping"),
        ("x" * 3_000_000, "at most 2 MB"),
    ],
)
def test_yaml_that_is_no_data_file_is_one_sentence(tmp_path, text, why):
    with pytest.raises(UserError, match=rf"a\.yaml: expected .*{why}") as caught:
        read_yaml(written(tmp_path, "a.yaml", text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;">]>' + THING % "&y;", "EntitiesForbidden"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + THING % "&x;", "EntitiesForbidden"),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>' + THING % "x", "EntitiesForbidden"),
        ("<annotation>" + "<a>" * 300_000, "nested more than 32 deep"),
        ("<annotation " + " ".join(f'a{n}="1"' for n in range(500)) + "/>", "too many"),
        (THING % ("x" * 2**24), "at most 16 MB"),
        *[
            (f'<?xml version="1.0" encoding="{name}"?><annotation/>', ".")
            for name in ("utf-7", "no-such", "idna", "hex")
        ],
        (b"\xff\xfe<\x00a\x00", "."),
        ("", "no element"),
        ("<annotation/><annotation/>", "junk"),
    ],
)
def test_xml_bombs_are_one_sentence(tmp_path, content, why):
    started = time.perf_counter()
    with pytest.raises(UserError, match=rf"a\.xml: expected .*{why}") as caught:
        read_xml(written(tmp_path, "a.xml", content))
    assert "\n" not in str(caught.value)
    assert "root:" not in str(caught.value)
    assert time.perf_counter() - started < 60


def test_a_document_type_that_declares_nothing_is_read_and_not_fetched(tmp_path):
    text = '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd">' + THING % "cat"
    assert read_xml(written(tmp_path, "a.xml", text)).findtext("object/name") == "cat"
    assert (
        read_xml(written(tmp_path, "a.xml", (THING % "chien né").encode("utf-16"))).findtext("object/name")
        == "chien né"
    )
