"""A part of a data set keeps its labels; the other images lose theirs."""

import torch

from ladle.data import read
from ladle.data.scenes import write_coco


def test_every_fourth_image_keeps_its_boxes_and_the_others_lie_apart(load, tmp_path):
    write_coco(tmp_path / "all", train=9, val=2, size=64)
    assert load("part").part(tmp_path / "all", 4, tmp_path / "part") == (3, 6)
    whole, kept = read(tmp_path / "all", "train"), read(tmp_path / "part", "train")
    assert (kept.classes, kept.category_ids) == (whole.classes, whole.category_ids)
    for one, other in zip(whole.images[::4], kept.images, strict=True):
        assert one.file.read_bytes() == other.file.read_bytes()
        torch.testing.assert_close(torch.tensor(one.boxes), torch.tensor(other.boxes))
        assert (one.labels.tolist(), one.crowd.tolist()) == (other.labels.tolist(), other.crowd.tolist())
    assert len(read(tmp_path / "part", "val")) == 2
    left = {file.name for file in (tmp_path / "part" / "unlabelled").iterdir()}
    assert left == {one.file.name for one in whole.images} - {one.file.name for one in kept.images}
