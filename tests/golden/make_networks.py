"""Record what mmdetection's networks answer: needs mmdet 3.3 with mmcv-lite and mmengine, and the package yolox 0.3.

Run as ``python -m tests.golden.make_networks`` in the folder of the project.
"""

import importlib.machinery
import sys
import types
from pathlib import Path

import mmcv
import numpy as np
import torch

mmcv.__version__ = "2.1.0"  # mmdetection asserts an older one


class _NoOperators(types.ModuleType):
    """In place of mmcv's compiled operators, of which these networks use none."""

    def __getattr__(self, name):
        return None if not name.startswith("__") else super().__getattribute__(name)


sys.modules["mmcv._ext"] = _NoOperators("mmcv._ext")
sys.modules["mmcv._ext"].__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)

import mmdet  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine.config import Config  # noqa: E402

from tests.golden.networks import CLASSES, FOLDER, image, shapes_of, state_of  # noqa: E402

CONFIGS = {
    "rtmdet-t": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "rtmdet-s": "rtmdet/rtmdet_s_8xb32-300e_coco.py",
    "rtmdet-m": "rtmdet/rtmdet_m_8xb32-300e_coco.py",
    "yolox-n": "yolox/yolox_nano_8xb8-300e_coco.py",
    "yolox-t": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "yolox-s": "yolox/yolox_s_8xb8-300e_coco.py",
    "yolox-m": None,
    "retinanet-r50": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "atss-r50": "atss/atss_r50_fpn_1x_coco.py",
    "gfl-r50": "gfl/gfl_r50_fpn_1x_coco.py",
    "paa-r50": "paa/paa_r50_fpn_1x_coco.py",
}


def plain(value):
    """A configuration with batch normalization of one process and no weights to download."""
    if isinstance(value, dict):
        return {k: "BN" if v == "SyncBN" else plain(v) for k, v in value.items() if k != "init_cfg"}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def configuration(name):
    """The model of a published configuration; YOLOX-M is not among mmdetection's, but is scaled like the others."""
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    model = plain(Config.fromfile(folder / (CONFIGS[name] or CONFIGS["yolox-s"])).model.to_dict())
    if name == "yolox-m":
        model["backbone"] |= {"deepen_factor": 0.67, "widen_factor": 0.75}
        model["neck"] |= {"in_channels": [192, 384, 768], "out_channels": 192, "num_csp_blocks": 2}
        model["bbox_head"] |= {"in_channels": 192, "feat_channels": 192}
    return model


def most_of(name):
    """The largest value of the image: small where images are not normalized."""
    return 4.0 if name.startswith("yolox") else 255.0


GAINS = {
    "rtmdet-t": 1.8,
    "rtmdet-s": 1.7,
    "rtmdet-m": 1.58,
    "yolox-n": 1.62,
    "yolox-t": 1.5,
    "yolox-s": 1.5,
    "yolox-m": 1.42,
}
"""Chosen so that outputs are of the order of 1."""


def gain_of(name):
    return GAINS.get(name, 1.0)


def rows(maps, width):
    return torch.cat([one.permute(0, 2, 3, 1).reshape(len(one), -1, width) for one in maps], dim=1)


def answer(name, model):
    """Logits, boxes and quality of every prior, as the model's head decodes them."""
    pixels = torch.from_numpy(image(most_of(name)))
    preprocessor = model.data_preprocessor
    if preprocessor._channel_conversion:
        pixels = pixels.flip(1)
    if preprocessor._enable_normalize:
        pixels = (pixels - preprocessor.mean) / preprocessor.std
    head = model.bbox_head
    scores, regressed, *more = head(model.extract_feat(pixels))
    generator, sizes = head.prior_generator, [tuple(one.shape[-2:]) for one in scores]
    if name.startswith("yolox"):
        priors = torch.cat(generator.grid_priors(sizes, device="cpu", with_stride=True))
        boxes = head._bbox_decode(priors, rows(regressed, 4))
    else:
        levels = generator.grid_priors(sizes, device="cpu")
        priors = torch.cat(levels)
        if name.startswith("gfl"):
            strides = [
                torch.full((len(level), 1), side[0]) for level, side in zip(levels, generator.strides, strict=True)
            ]
            distances = head.integral(rows(regressed, 68).reshape(-1, 68)) * torch.cat(strides)
            boxes = head.bbox_coder.decode(head.anchor_center(priors), distances)
        else:
            boxes = head.bbox_coder.decode(priors, rows(regressed, 4)[0])
        boxes = boxes.view(1, -1, 4)
    quality = rows(more[0], 1)[..., 0] if more else torch.zeros(0)
    return rows(scores, 80)[..., :CLASSES], boxes, quality


def record(network):
    """Names and shapes of the tensors of a network."""
    state = network.state_dict()
    shapes = [[*value.shape, *[-1] * (4 - value.dim())] for value in state.values()]
    return {"names": np.frombuffer("\n".join(state).encode(), np.uint8), "shapes": np.array(shapes, np.int16)}


@torch.no_grad()
def main():
    register_all_modules()
    for name in CONFIGS:
        model = MODELS.build(configuration(name)).eval()
        found = record(model)
        model.load_state_dict({k: torch.from_numpy(v) for k, v in state_of(shapes_of(found), gain_of(name)).items()})
        for kind, value in zip(("logits", "boxes", "quality"), answer(name, model), strict=True):
            found[kind] = value.numpy()
            print(name, kind, tuple(value.shape), value.std())
        found["parameters"] = np.array(sum(p.numel() for p in model.parameters()))
        found |= {"gain": np.array(gain_of(name)), "most": np.array(most_of(name))}
        np.savez_compressed(FOLDER / f"network__{name}__mmdet.npz", **found)
    # The names of the authors' own release of YOLOX.
    from yolox.models import YOLOPAFPN, YOLOX, YOLOXHead

    for name, depth, width, depthwise in (("yolox-n", 0.33, 0.25, True), ("yolox-s", 0.33, 0.5, False)):
        channels = [256, 512, 1024]
        model = YOLOX(
            YOLOPAFPN(depth, width, in_channels=channels, depthwise=depthwise),
            YOLOXHead(80, width, in_channels=channels, depthwise=depthwise),
        ).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3  # as the release's configuration sets it
        found = record(model)
        model.load_state_dict({k: torch.from_numpy(v) for k, v in state_of(shapes_of(found), gain_of(name)).items()})
        out = model(torch.from_numpy(image(most_of(name))))
        half = out[..., 2:4] / 2
        found["boxes"] = torch.cat([out[..., :2] - half, out[..., :2] + half], dim=-1).numpy()
        found["quality"] = out[..., 4].logit().numpy()
        found["logits"] = out[..., 5 : 5 + CLASSES].logit().numpy()
        found |= {"gain": np.array(gain_of(name)), "most": np.array(most_of(name))}
        np.savez_compressed(FOLDER / f"network__{name}__yolox.npz", **found)


if __name__ == "__main__":
    main()
