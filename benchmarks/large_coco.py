"""Make a COCO data set as large as COCO's train2017, of tiny images, and measure how it is read.

    python benchmarks/large_coco.py build/large              # 120,000 images, 860,000 boxes
    python benchmarks/large_coco.py build/large --only-make

The image files are hard links to one JPEG file of 64 x 48 pixels. The output is seconds, of the clock and of the
processor, and the largest resident memory of a process that reads the data set. The first reading opens the header of
every image; later ones find the headers in the cache (XDG_CACHE_HOME).
"""

import argparse
import io
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ladle.data import read

WIDTH, HEIGHT, CLASSES, LINKS = 64, 48, 80, 20_000


def make(root, images, boxes):
    """Write the images and their annotations, both of a split train and of a split val of 100 images."""
    generator = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 100)):
        folder = root / split
        folder.mkdir(parents=True)
        link(folder, count)
        annotations = annotate(generator, count, boxes * count // images)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(annotations))


def link(folder, count):
    """Write ``count`` names of one image; a file system allows a limited number of hard links to a file."""
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(stream, "JPEG")
    for number in range(count):
        file = folder / f"{number:012d}.jpg"
        if number % LINKS == 0:
            first = file
            first.write_bytes(stream.getvalue())
        else:
            os.link(first, file)


def annotate(generator, images, boxes):
    """Annotations as COCO writes them, without segmentations."""
    low = generator.uniform(0, (WIDTH - 12, HEIGHT - 12), (boxes, 2))
    side = generator.uniform(2, 12, (boxes, 2))
    owner, category = generator.integers(images, size=boxes), generator.integers(1, CLASSES + 1, boxes)
    rows = np.concatenate([low, side], axis=1).round(2).tolist()
    return {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in range(images)
        ],
        "annotations": [
            {"id": n, "image_id": int(i), "category_id": int(c), "bbox": row, "area": row[2] * row[3], "iscrowd": 0}
            for n, (i, c, row) in enumerate(zip(owner, category, rows, strict=True))
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)],
    }


def main():
    """Make the data set if it is missing, and print how long reading takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--only-make", action="store_true")
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        make(arguments.folder, arguments.images, arguments.boxes)
    if arguments.only_make:
        return
    start, processor = time.perf_counter(), time.process_time()
    dataset = read(str(arguments.folder), "train")
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    unit = 2**20 if sys.platform == "darwin" else 2**10
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    boxes = sum(len(image.boxes) for image in dataset.images)
    times = f"{seconds:.1f} s, {processor:.1f} s of the processor"
    print(f"{len(dataset):,} images, {boxes:,} boxes: {times}, at most {mebibytes:,.0f} MiB resident")


if __name__ == "__main__":
    main()
