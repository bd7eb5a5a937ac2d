"""transformers' detectors find what transformers' own processing finds, or are refused in a sentence."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor

from ladle.errors import UserError
from ladle.recipes.origins import teacher_hash
from ladle.teachers import open_teacher, parse_uri
from tests.teachers.batches import batch_of
from tests.teachers.checkpoints import FAMILIES, checkpoint

NAMES = ("N/A", "cat", "dog")
LEAST = 0.3
SIZES = [[64, 48], [40, 64], [64, 48]]
IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of YOLOS, the fastest to load."""
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint(folder, "Yolos", NAMES)
    return folder


def theirs(family, folder, model):
    """What transformers finds in image files above a score; of YOLOS, which takes no mask, image by image."""
    processor, alone = AutoImageProcessor.from_pretrained(folder), family == "Yolos"
    files = [Image.fromarray(one[:, :h, :w].permute(1, 2, 0).numpy()) for one, (h, w) in zip(IMAGES, SIZES)]
    found = []
    for part in [[0], [1], [2]] if alone else [[0, 1, 2]]:
        made = processor(images=[files[one] for one in part], return_tensors="pt")
        with torch.no_grad():
            outputs = model(pixel_values=made["pixel_values"]) if alone else model(**made)
        sizes = [tuple(SIZES[one]) for one in part]
        found += processor.post_process_object_detection(outputs, threshold=LEAST, target_sizes=sizes)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_its_boxes_are_those_of_its_own_post_processing(family, tmp_path):
    model = checkpoint(tmp_path, family, ("cat", "dog", "emu"))
    teacher = open_teacher(f"hf:{tmp_path}?score={LEAST}", ["dog", "emu", "cat"])
    found, _ = teacher.observe(batch_of(IMAGES, SIZES))
    scores = found.logits.sigmoid()
    if family in ("Detr", "Yolos"):  # its own processing keeps one class of each box
        scores = scores * (scores == scores.amax(-1, keepdim=True))
    most = 12 if FAMILIES[family][0] == "RTDetr" else 100  # and so many detections
    own = theirs(family, tmp_path, model)
    assert sum(len(one["scores"]) for one in own) >= 12
    for boxes, each, one in zip(found.boxes, scores, own):
        assert len(one["scores"]) == min(most, int((each > LEAST).sum()))
        for box, score, label in zip(one["boxes"], one["scores"], one["labels"]):
            near = (boxes - box).abs().amax(-1) < 1e-3
            same = (each[:, (2, 0, 1)[label]] - score).abs() < 1e-4
            assert (near & same).any()


def test_labels_that_are_no_class_are_left_out_and_low_scores_are_background(folder):
    teacher = open_teacher(f"hf:{folder}?score=0", ["dog", "cat"])
    assert (teacher.detector.classes, teacher.table.columns, teacher.info.name) == (("cat", "dog"), (1, 0), str(folder))
    found, _ = teacher.observe(batch_of(IMAGES, SIZES))
    above, _ = open_teacher(f"hf:{folder}?score=0.3", ["dog", "cat"]).observe(batch_of(IMAGES, SIZES))
    kept = found.logits.sigmoid().amax(-1) >= 0.3
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(above.boxes[kept], found.boxes[kept])
    assert torch.equal(above.logits[kept], found.logits[kept])
    assert not above.boxes[~kept].any()
    assert above.logits[~kept].sigmoid().amax() < 2e-4


def test_images_of_a_batch_do_not_influence_each_other(folder):
    teacher = open_teacher(f"hf:{folder}", ["cat"])
    together, _ = teacher.observe(batch_of(IMAGES, SIZES))
    for row, size in enumerate(SIZES):
        alone, _ = teacher.observe(batch_of(IMAGES[row : row + 1, :, : size[0], : size[1]], [size]))
        assert torch.allclose(together.boxes[row], alone.boxes[0], atol=1e-3)
        assert torch.allclose(together.logits[row], alone.logits[0], atol=1e-3)


def test_images_of_floats_are_those_of_bytes(folder):
    teacher = open_teacher(f"hf:{folder}", ["cat"])
    (one, _), (other, _) = (teacher.observe(batch_of(images)) for images in (IMAGES, IMAGES / 255))
    assert torch.allclose(one.boxes, other.boxes, atol=1e-2)
    assert torch.allclose(one.logits, other.logits, atol=1e-2)


def test_the_plan_says_how_it_takes_images(folder):
    usual, asked = (open_teacher(f"hf:{folder}{query}", ["cat"]).detector.about for query in ("", "?imgsz=32,48"))
    assert usual == (
        "takes images as YolosImageProcessor makes them (short side to 64 px, at most 96)",
        "gives final boxes",
    )
    assert "short side to 32 px, at most 48" in asked[0]


def damaged(folder, tmp_path, change):
    """A copy of a checkpoint with changed tensors."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return copy


HEAD = "class_labels_classifier.layers.2.weight"


def test_a_half_loaded_teacher_is_refused(folder, tmp_path):
    wrong = r"1 tensors? of the detector .*such as class_labels_classifier\.layers\.2\.weight: .*would be random"
    for number, change in enumerate(
        (lambda tensors: tensors.pop(HEAD), lambda tensors: tensors.update({HEAD: torch.zeros(9, 16)}))
    ):
        with pytest.raises(UserError, match=wrong):
            open_teacher(f"hf:{damaged(folder, tmp_path / str(number), change)}", ["cat"])
    more = damaged(folder, tmp_path, lambda tensors: tensors.update({"extra": torch.zeros(1)}))
    assert open_teacher(f"hf:{more}", ["cat"]).detector.about[-1].startswith("1 tensors of the checkpoint")


def test_classes_without_names_are_refused_and_named(folder, tmp_path):
    copy = damaged(folder, tmp_path, lambda tensors: None)
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {str(number): f"LABEL_{number}" for number in range(3)}
    config["label2id"] = {name: int(number) for number, name in config["id2label"].items()}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"have no names, only LABEL_0 .*\?classes=names.txt.*\?class_map=names.yaml"):
        open_teacher(f"hf:{copy}", ["cat"])
    (tmp_path / "names.txt").write_text("bird\ncat\ndog\n")
    assert open_teacher(f"hf:{copy}?classes={tmp_path / 'names.txt'}", ["dog"]).table.columns == (2,)
    (tmp_path / "map.yaml").write_text("cat: LABEL_1\n")
    assert open_teacher(f"hf:{copy}?class_map={tmp_path / 'map.yaml'}", ["cat"]).table.columns == (1,)
    with pytest.raises(UserError, match="expected the names of its 3 labels in order, found 80"):
        open_teacher(f"hf:{copy}?classes=coco80", ["cat"])


def test_code_of_a_checkpoint_is_never_run(tmp_path):
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoImageProcessor": "mine.Processor"}}
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text(json.dumps(config | {"image_processor_type": "Mine"}))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="expected a config.json and a preprocessor_config.json of a detector"):
        open_teacher(f"hf:{tmp_path}", ["cat"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?imgsz=1,2,3", r"\?imgsz=1,2,3: expected one number or two"),
        ("?score=1", "expected a number from 0 to below 1"),
        ("?bgr=1", "hf has no option 'bgr'; it takes"),
        ("?download=yes", "expected one of 0, 1"),
    ],
)
def test_what_is_not_understood_is_refused(folder, query, named):
    with pytest.raises(UserError, match=named):
        open_teacher(f"hf:{folder}{query}", ["cat"])


def test_other_folders_and_a_missing_library_are_refused(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="preprocessor_config.json of a detector"):
        open_teacher(f"hf:{tmp_path}", ["cat"])
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "DetrImageProcessor"}')
    with pytest.raises(UserError, match="expected the weights of a detector that transformers knows"):
        open_teacher(f"hf:{tmp_path}", ["cat"])
    monkeypatch.setattr("ladle.teachers.transformers_file.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs transformers: pip install 'ladle\[transformers\]'"):
        open_teacher(f"hf:{tmp_path}", ["cat"])


def test_a_name_is_read_from_the_hub_s_cache_and_nothing_is_downloaded_unasked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no folder org/tiny, and the hub's cache .*\?download=1 to download it"):
        open_teacher("hf:org/tiny", ["cat"])
    with pytest.raises(UserError, match="expected a config.json and a preprocessor_config.json of a detector"):
        open_teacher("hf:org/tiny?download=1", ["cat"])
    repository = tmp_path / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    teacher = open_teacher("hf:org/tiny", ["cat"])
    assert (teacher.info.name, teacher.table.columns) == ("org/tiny", (0,))
    assert teacher_hash("hf:org/tiny") == teacher_hash(f"hf:{folder}")


def test_the_files_of_a_checkpoint_are_its_identity(folder, tmp_path):
    other = damaged(folder, tmp_path, lambda tensors: tensors[HEAD].add_(1))
    assert teacher_hash(f"hf:{folder}") == teacher_hash(f"hf:{folder}?score=0.5")
    assert teacher_hash(f"hf:{folder}") != teacher_hash(f"hf:{other}")
    assert parse_uri(f"hf:{folder}").is_there
    assert not parse_uri("hf:nowhere").is_there
