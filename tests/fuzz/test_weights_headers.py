"""A small part of the campaign of changed weights, without processes of their own; and what the sentences say."""

import json
import random
from itertools import islice

import pytest
import torch

from ladle.detectors import load_detector, read_spec, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from tests.fuzz.weights_headers import changes, joined, make_base, parts_of, with_spec


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {name: make_base(name, folder / "base.safetensors") for name in ("paa-tiny", "cascade-tiny")}


def outcome(raw, file):
    """The sentence with which a file is refused, or what its detector finds in an empty image."""
    file.write_bytes(raw)
    try:
        detector = load_detector(file).eval()
    except UserError as error:
        return str(error)
    with torch.no_grad():
        return detector.extract_features(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("name", ["paa-tiny", "cascade-tiny"])
def test_changed_files_are_read_or_refused_in_a_sentence(bases, tmp_path, name):
    file, refused = tmp_path / "w.safetensors", 0
    for changed in islice(changes(bases[name], str(tmp_path / "secret.pth"), random.Random(4)), 40):
        found = outcome(changed.raw, file)
        if isinstance(found, str):
            refused += 1
            assert found.startswith(str(file)), changed.how
            assert "\n" not in found, changed.how
            assert len(found) < 700, changed.how
        else:
            assert len(found) == 3, changed.how
            assert all(maps.isfinite().all() for maps in found), changed.how
    assert refused > 20


def changed_spec(raw, **values):
    return with_spec(raw, json.dumps(json.loads(parts_of(raw)[0]["__metadata__"]["ladle"]) | values))


def changed_part(raw, part, **values):
    spec = json.loads(parts_of(raw)[0]["__metadata__"]["ladle"])
    return with_spec(raw, json.dumps(spec | {part: spec[part] | values}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: changed_spec(raw, imgsz=1_000_000), "a whole number from 1 to 8192 at imgsz, found 1000000"),
        (lambda raw: changed_spec(raw, imgsz=True), "a whole number from 1 to 8192 at imgsz, found True"),
        (lambda raw: changed_spec(raw, extra=10**9), "a whole number from 0 to 2 at extra, found 1000000000"),
        (lambda raw: changed_spec(raw, classes=[]), "a list of length 1 to 20000 at classes, found []"),
        (
            lambda raw: changed_spec(raw, classes=["a"], category_ids=[1]),
            "stages.0.class_conv.bias, expected numbers of",
        ),
        (lambda raw: changed_spec(raw, category_ids=[1]), "found 1 category_ids for 6 classes"),
        (lambda raw: changed_spec(raw, category_ids=[7] * 6), "found category_ids of which two are the same"),
        (lambda raw: changed_spec(raw, classes=["a"] * 6), "found classes of which two are the same"),
        (lambda raw: changed_spec(raw, classes=[" ", *"abcde"]), "found a class without a name"),
        (lambda raw: changed_spec(raw, std=[0, 1, 1]), "a number from 1e-06 to 1000 at std[0], found 0"),
        (lambda raw: changed_spec(raw, extra=1), "tensors do not fit a paa-tiny"),
        (lambda raw: changed_spec(raw, regions=[1]), "expected a mapping at regions[0], found 1"),
        (lambda raw: changed_part(raw, "head", width=4096), "tensors do not fit a paa-tiny (first: neck.fpn.inner"),
        (lambda raw: changed_part(raw, "head", depth=65), "a whole number from 0 to 64 at head.depth, found 65"),
        (lambda raw: changed_part(raw, "head", class_prior=0), "above 0 and below 1 at head.class_prior, found 0"),
        (
            lambda raw: changed_part(raw, "head", quality=False),
            "found the score rule root and a head without a quality",
        ),
        (lambda raw: changed_part(raw, "inference", keep=0), "from 1 to 10000 at inference.keep, found 0"),
        (lambda raw: changed_part(raw, "backbone", pretrained=True), "expected no source of first weights at backbone"),
        (lambda raw: changed_part(raw, "backbone", weights="a.pth"), "expected no source of first weights at backbone"),
        (lambda raw: changed_part(raw, "backbone", name="nosuch"), "cannot be built: no backbone is called 'nosuch'"),
        (lambda raw: changed_part(raw, "backbone", name="r101"), "tensors do not fit a paa-tiny"),
        (lambda raw: with_spec(raw, "[" * 100_000), "brackets nested too deeply"),
        (lambda raw: with_spec(raw, " " * 5_000_000), "JSON of at most 4000000 bytes, found 5000000"),
        (lambda raw: raw[:-1], "is not a readable safetensors file"),
        (lambda raw: b"", "is not a readable safetensors file"),
    ],
)
def test_what_is_wrong_with_a_header_is_said(bases, tmp_path, change, said):
    found = outcome(change(bases["paa-tiny"]), tmp_path / "w.safetensors")
    assert said in found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("w.onnx", "w.onnx is an exported detector; expected its weights"),
        ("w.pt2", "w.pt2 is an exported detector; expected its weights"),
        ("resume.pt", "resume.pt is a checkpoint of PyTorch; expected weights saved by ladle"),
        ("w.txt", "w.txt is not a readable safetensors file"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name, said):
    assert said in outcome(b"PK", tmp_path / name)


def with_tensor(raw, name, numbers=None, **fields):
    """The file with other fields of a tensor, or with other bytes at its begin."""
    header, body = parts_of(raw)
    one = header[name] | fields
    start = one["data_offsets"][0]
    body = body if numbers is None else body[:start] + numbers + body[start + len(numbers) :]
    return joined(header | {name: one}, body)


BIAS = "stages.0.class_conv.bias"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda raw: with_tensor(raw, BIAS, b"\x00\x00\xc0\x7f"),
            f"found nan or infinite ones in 1 tensors (first: {BIAS})",
        ),
        (
            lambda raw: with_tensor(raw, BIAS, b"\x00\x00\x80\x7f"),
            f"found nan or infinite ones in 1 tensors (first: {BIAS})",
        ),
        (
            lambda raw: with_tensor(raw, BIAS, shape=[2, 3]),
            "expected numbers of shape [6], found numbers of shape [2, 3]",
        ),
        (lambda raw: with_tensor(raw, BIAS, dtype="I32"), "expected numbers of shape [6], found I32 of shape [6]"),
        (lambda raw: with_tensor(raw, BIAS, dtype="F16", shape=[12]), "found numbers of shape [12]"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_said(bases, tmp_path, change, said):
    assert said in outcome(change(bases["paa-tiny"]), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["fasterrcnn-tiny", "cascade-tiny"])
def test_stages_that_do_not_fit_each_other_are_refused(tmp_path, name):
    file = tmp_path / "w.safetensors"
    save_detector(detector_spec(name, ("a",)).build(), file)
    raw = file.read_bytes()
    spec = json.loads(parts_of(raw)[0]["__metadata__"]["ladle"])
    first = spec["regions"][0]
    for regions, said in (
        ([], "0 region heads behind a ProposalSpec"),
        ([first | {"proposals": None}], "region head 0 lacks a choice of proposals"),
        ([first, first], "region head 1 has a choice of proposals"),
        ([first | {"width": 47}], "region head 0 for 3 maps of width 47, where 3 of width 48 are"),
        ([first | {"levels": 4}], "region head 0 for 4 maps of width 48"),
    ):
        assert f"found {said}" in outcome(changed_spec(raw, regions=regions), file)


def test_a_file_that_is_refused_costs_no_memory(bases, tmp_path, monkeypatch):
    """A head of the largest width that limits allow would take gigabytes: it is held against the file first."""
    made = []
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", lambda conv: made.append(conv.weight.device.type))
    found = outcome(changed_part(bases["paa-tiny"], "head", width=4096, depth=64), tmp_path / "w.safetensors")
    assert "tensors do not fit" in found
    assert set(made) == {"meta"}


def test_half_precision_and_old_headers_are_read(tmp_path):
    file = tmp_path / "w.safetensors"
    detector = detector_spec("paa-tiny", ("a", "\ud800")).build()
    save_detector(detector, file, half=True)
    assert read_spec(file).classes == ("a", "\ud800")
    assert all(p.dtype == torch.float32 for p in load_detector(file).parameters())
