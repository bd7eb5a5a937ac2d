"""A data set, a budget and a teacher so small that a run takes a second."""

from dataclasses import replace

import torch
from safetensors.torch import load_file

from ladle.data.scenes import write_coco
from ladle.recipes import Run, train

RUN = Run(epochs=1, batch=4, imgsz=64, device="cpu", quiet=True)
FLAGS = "--epochs 1 --batch 4 --imgsz 64 --device cpu --quiet"
"""The same on the command line."""


def make_data(folder):
    """Eight drawn images of 64 pixels for training, four for validation, in COCO format."""
    write_coco(folder, train=8, val=4, size=64)
    return str(folder)


def make_teacher(data, folder, model="paa-tiny"):
    """The weights of a detector after one epoch, with an AP near 0."""
    run = replace(RUN, name=model, project=str(folder), seed=5)
    return str(train(data, model, run).weights)


def same_weights(first, second):
    """Whether two files hold the same tensors, bit for bit."""
    return same_tensors(load_file(first), load_file(second))


def same_tensors(one, other):
    """Whether two states hold the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
