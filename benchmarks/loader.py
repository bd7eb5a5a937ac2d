"""Training views per second and core compared with torchvision's transforms on the same images.

    OMP_NUM_THREADS=1 python benchmarks/loader.py
    OMP_NUM_THREADS=1 python benchmarks/loader.py --imgsz 640 --rounds 9

Both run in one process with one thread, in several rounds and in turns, on the same arrays of 480 x 640 pixels; the
time is that of the processor, without waiting. Both return bytes and boxes: the network normalizes on its device. Only
the last row decodes JPEG files as well. The output is a Markdown table of medians and their ratio.
"""

import argparse
import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage
from torchvision import tv_tensors
from torchvision.transforms import v2

from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.loader import DatasetSource, _generator, view
from ladle.data.samples import Sample
from ladle.data.transforms import Augmentation

HEIGHT, WIDTH, OBJECTS = 480, 640, 8
CASES = {
    "default": Augmentation(),
    "default without color": Augmentation(jitter=0.0),
    "resizing alone": Augmentation(flip=0.0, jitter=0.0, crop=0.0),
    "default and mosaic": Augmentation(mosaic=1.0),
}


@dataclass(frozen=True)
class Arrays:
    """Decoded samples in memory."""

    samples: tuple[Sample, ...]
    classes = ("object",)
    category_ids = (1,)

    def __len__(self):
        return len(self.samples)

    def sample(self, index):
        """Sample ``index``."""
        return self.samples[index]


def painted(seed):
    """An image like a photograph: smooth color with noise, as a JPEG file and decoded, and random boxes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, HEIGHT // 32, WIDTH // 32, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic")[0]
    noisy = smooth + 12 * torch.randn(3, HEIGHT, WIDTH, generator=generator)
    pixels = noisy.clamp(0, 255).byte().permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "JPEG", quality=90)
    side = 20 + 200 * torch.rand(OBJECTS, 2, generator=generator)
    low = torch.rand(OBJECTS, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - side)
    return stream.getvalue(), torch.cat([low, low + side], dim=1)


def files(folder, count):
    """JPEG files with boxes."""
    images = []
    for seed in range(count):
        data, boxes = painted(seed)
        file = Path(folder) / f"{seed}.jpg"
        file.write_bytes(data)
        labels, crowd = np.zeros(OBJECTS, np.int64), np.zeros(OBJECTS, np.bool_)
        images.append(ImageInfo(seed, file, HEIGHT, WIDTH, boxes.numpy(), labels, crowd))
    return DetectionDataset(tuple(images), ("object",), (1,), (), Path(folder))


def ours(source, augmentation, imgsz):
    """Make one view of every image."""
    for index in range(len(source)):
        view(source, index, imgsz, augmentation, _generator("view", 0, 0, index))


def tensors(sample):
    """The sample as torchvision's transforms take it."""
    boxes = tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    return {"image": tv_tensors.Image(sample.image), "boxes": boxes, "labels": sample.labels}


def cut_to(size):
    """A random resized crop of torchvision with the windows of ours: 0.4 to 1 of the sides."""
    aspect = WIDTH / HEIGHT
    return v2.RandomResizedCrop(size, scale=(0.16, 1.0), ratio=(0.75 * aspect, 1.33 * aspect), antialias=True)


def chain(augmentation, imgsz):
    """The same steps from torchvision."""
    size = (round(imgsz * HEIGHT / WIDTH), imgsz)
    jitter = augmentation.jitter
    steps = [
        v2.RandomApply([cut_to(size)], p=augmentation.crop),
        v2.Resize(size, antialias=True),
        v2.RandomHorizontalFlip(augmentation.flip),
        v2.ColorJitter(jitter, jitter, jitter, jitter / 4),
        v2.SanitizeBoundingBoxes(min_size=1),
    ]
    return v2.Compose([step for step, used in zip(steps, (augmentation.crop, 1, 1, jitter, 1), strict=True) if used])


def joined(samples, imgsz):
    """Four samples, each cropped and resized to its part of a square."""
    x, y = (imgsz * (0.3 + 0.4 * torch.rand(2))).round().long().tolist()
    image, boxes, labels = torch.empty(3, imgsz, imgsz, dtype=torch.uint8), [], []
    corners = ((0, 0, x, y), (x, 0, imgsz, y), (0, y, x, imgsz), (x, y, imgsz, imgsz))
    for sample, (left, top, right, bottom) in zip(samples, corners, strict=True):
        height, width = bottom - top, right - left
        part = v2.RandomResizedCrop((height, width), scale=(0.9, 1.0), ratio=(width / height,) * 2)(tensors(sample))
        image[:, top:bottom, left:right] = part["image"]
        boxes.append(part["boxes"].as_subclass(torch.Tensor) + torch.tensor([left, top, left, top]))
        labels.append(part["labels"])
    whole = tv_tensors.BoundingBoxes(torch.cat(boxes), format="XYXY", canvas_size=(imgsz, imgsz))
    return {"image": tv_tensors.Image(image), "boxes": whole, "labels": torch.cat(labels)}


def theirs(source, augmentation, imgsz):
    """Make one view of every image with torchvision."""
    steps = chain(augmentation, imgsz)
    for index in range(len(source)):
        if augmentation.mosaic:
            partners = torch.randint(len(source), (3,)).tolist()
            steps(joined([source.sample(number) for number in (index, *partners)], imgsz))
        else:
            steps(tensors(source.sample(index)))


def take_turns(both, rounds):
    """Seconds of processor time of each in every round, in which each works on all images; a first is not counted.

    Processor time of one thread leaves out the time that other processes take.
    """
    times = {name: [] for name in both}
    for number in range(rounds + 1):
        for name, work in both.items():
            start = time.process_time()
            work()
            if number:
                times[name].append(time.process_time() - start)
    return times


def main():
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{arguments.imgsz} px, one thread, torch {torch.__version__}, {arguments.rounds} rounds\n")
    print("| view | Ladle, views per second | torchvision | ratio |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        disk = DatasetSource(files(folder, arguments.images))
        memory = Arrays(tuple(map(disk.sample, range(len(disk)))))
        rows = [(name, memory, augmentation) for name, augmentation in CASES.items()]
        for name, source, augmentation in [*rows, ("default, from JPEG files", disk, Augmentation())]:
            both = {side.__name__: partial(side, source, augmentation, arguments.imgsz) for side in (ours, theirs)}
            times = take_turns(both, arguments.rounds)
            mine, other = (len(source) / statistics.median(times[side]) for side in both)
            print(f"| {name} | {mine:,.0f} | {other:,.0f} | {mine / other:.1f}× |", flush=True)


if __name__ == "__main__":
    main()
