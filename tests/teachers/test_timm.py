"""timm's models teach by their feature maps, with trained weights only."""

import shutil

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from ladle.data.scenes import CLASSES
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.recipes.origins import teacher_hash
from ladle.teachers import Teacher, TimmTeacher, open_any, open_teacher
from tests.recipes.test_conformance import loss_of, scenes
from tests.teachers.batches import batch_of

CONV, VIT = "test_resnet", "test_vit"
IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timm")
    for name in (CONV, VIT):
        torch.manual_seed(0)
        save_file(timm.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in (CONV, VIT)}


@pytest.fixture(scope="module")
def teachers(weights):
    return {name: open_any(f"timm:{name}?weights={file}", CLASSES) for name, file in weights.items()}


def normalized(name, images):
    config = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (config.mean, config.std))
    return (images / 255 - mean) / std


def test_maps_of_a_convolutional_network_are_timm_s(teachers, weights):
    teacher = teachers[CONV]
    assert isinstance(teacher, Teacher)
    assert teacher.pyramid.strides == (8, 16, 32)
    torch.manual_seed(0)
    own = timm.create_model(CONV, features_only=True, out_indices=(2, 3, 4)).eval()
    with torch.no_grad():
        wanted = own(normalized(CONV, IMAGES))
    for images in (IMAGES, IMAGES / 255):
        found = teacher.observe(batch_of(images)).features
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_the_tokens_of_a_transformer_become_maps_of_every_stride(teachers):
    teacher = teachers[VIT]
    own = teacher.model
    assert teacher.pyramid.strides == (8, 16, 32)
    with torch.no_grad():
        tokens = own.forward_features(normalized(VIT, IMAGES))[:, own.num_prefix_tokens :]
    grid = tokens.unflatten(1, (4, 6)).permute(0, 3, 1, 2)  # patches of 16 pixels
    fine, same, coarse = teacher.observe(batch_of(IMAGES)).features
    assert torch.allclose(same, grid, atol=1e-5)
    assert (fine.shape[2:], coarse.shape[2:]) == ((8, 12), (2, 3))
    assert torch.allclose(fine.mean((2, 3)), grid.mean((2, 3)), atol=0.1)
    assert "one map of its last block, resized; images are scaled by 1" in teacher.about[1]


def test_images_are_scaled_so_that_patches_of_14_pixels_cover_16():
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=16, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True
    )
    teacher = TimmTeacher("vit", model)
    assert teacher.maps.scale == 14 / 16
    assert [tuple(one.shape) for one in teacher.observe(batch_of(IMAGES)).features] == [
        (2, 16, 8, 12),
        (2, 16, 4, 6),
        (2, 16, 2, 3),
    ]


@pytest.mark.parametrize(("name", "method"), [(CONV, "pkd+cwd"), (VIT, "pkd+mgd")])
def test_it_teaches_a_step(teachers, name, method):
    torch.manual_seed(0)
    student = detector_spec("fcos-tiny", CLASSES, imgsz=96).build()
    plan = plan_for(method, student.spec, teachers[name].info)
    objective = TrainingStep(student, plan.lessons, teachers[name])
    terms = objective(scenes(2))
    assert objective.distilled == set(plan.teaches)
    assert all(float(terms[term].total.detach()) > 0 for term in plan.teaches)
    loss_of(terms).backward()
    assert all(one.grad is not None for one in student.parameters())
    assert all(one.grad is None for one in teachers[name].model.parameters())


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ("lad", "gives feature maps only, so it cannot judge; take pkd, cwd, mgd"),
        ("soft", "uses predictions, and the teacher test_resnet gives feature maps only; take pkd, cwd, mgd"),
        ("gi", "uses predictions, and the teacher test_resnet gives feature maps only"),
        ("ld", "has feature maps only, but its predictions are needed"),
        ("cross", "has feature maps only, but its predictions are needed"),
    ],
)
def test_methods_that_need_predictions_are_refused(teachers, method, named):
    with pytest.raises(UserError, match=f"--method {method}: .*{named}"):
        plan_for(method, detector_spec("gfl-tiny", CLASSES), teachers[CONV].info)


def test_random_and_incomplete_weights_are_refused(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"has random weights, since timm/test_resnet\S* is not in .*\?weights="):
        open_any(f"timm:{CONV}", CLASSES)
    with pytest.raises(UserError, match="there is no such file"):
        open_any(f"timm:{CONV}?weights=none.pt", CLASSES)
    with pytest.raises(UserError, match=r"of its \d+ tensors are missing, such as"):
        open_any(f"timm:{CONV}?weights={weights[VIT]}", CLASSES)
    with pytest.raises(UserError, match=r"timm has no model 'resnet_x' \("):
        open_any("timm:resnet_x", CLASSES)
    with pytest.raises(UserError, match="it gives feature maps only; expected a detector"):
        open_teacher(f"timm:{CONV}", CLASSES)
    folder = tmp_path / f"models--{timm.get_pretrained_cfg(CONV).hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(weights[CONV], folder / "snapshots" / ("0" * 40) / "model.safetensors")
    assert open_any(f"timm:{CONV}", CLASSES).pyramid.strides == (8, 16, 32)
    assert teacher_hash(f"timm:{CONV}?weights={weights[CONV]}") != teacher_hash(f"timm:{CONV}?weights={weights[VIT]}")
