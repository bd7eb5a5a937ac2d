"""Keep the labels of a part of the training images, and put the others into a folder without labels.

    python benchmarks/part.py --data DIR --each 10 --out PART

PART is a COCO data set of every tenth training image and of all validation images, PART/unlabelled holds the other
training images. Files are copied. The order is that of the data set, so that the same data give the same part.
"""

import argparse
import json
import shutil
from pathlib import Path

from ladle.data import read


def entries(dataset, images):
    """The content of a COCO file."""
    categories = [
        {"id": number, "name": name} for number, name in zip(dataset.category_ids, dataset.classes, strict=True)
    ]
    files, annotations = [], []
    for number, image in enumerate(images, start=1):
        files.append({"id": number, "file_name": image.file.name, "height": image.height, "width": image.width})
        for box, label, crowd in zip(image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True):
            sides = [box[2] - box[0], box[3] - box[1]]
            about = {"category_id": dataset.category_ids[label], "iscrowd": int(crowd), "area": sides[0] * sides[1]}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "bbox": [*box[:2], *sides]} | about)
    return {"images": files, "annotations": annotations, "categories": categories}


def copy(images, folder):
    """Copy image files, of which each needs its own name."""
    folder.mkdir(parents=True)
    if len({image.file.name for image in images}) < len(images):
        raise SystemExit(f"{folder}: two images have the same file name")
    for image in images:
        shutil.copyfile(image.file, folder / image.file.name)


def part(data, each, out):
    """Write both folders; returns the numbers of images with and without labels."""
    train, val = read(data, "train"), read(data, "val")
    chosen, others = train.images[::each], [one for at, one in enumerate(train.images) if at % each]
    (out / "annotations").mkdir(parents=True)
    for split, dataset, images in (("train", train, chosen), ("val", val, val.images)):
        copy(images, out / split)
        file = out / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(entries(dataset, images)), encoding="utf-8")
    copy(others, out / "unlabelled")
    return len(chosen), len(others)


def main():
    """Write the part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    counts = part(arguments.data, arguments.each, arguments.out)
    print(f"{arguments.out}: {counts[0]} images with labels, {counts[1]} without")


if __name__ == "__main__":
    main()
