"""Names that were changed still lead to what they meant, with a warning that says what to use."""

from pathlib import Path

import pytest

import ladle.data
from ladle.data import DetectionDataset, ImageInfo, load_image


@pytest.mark.parametrize(
    ("former", "now"), [("Catalogue", DetectionDataset), ("Picture", ImageInfo), ("load_picture", load_image)]
)
def test_a_former_name_of_the_package_warns(former, now):
    with pytest.warns(DeprecationWarning, match=f"ladle.data.{former} is now called {now.__name__}"):
        assert getattr(ladle.data, former) is now


def test_the_former_name_of_a_data_sets_images_warns():
    data = DetectionDataset((), ("cat",), (1,), (), Path())
    with pytest.warns(DeprecationWarning, match="is now called images"):
        assert data.pictures is data.images


def test_a_name_that_never_was_is_none():
    with pytest.raises(AttributeError, match="has no attribute 'painting'"):
        _ = ladle.data.painting
