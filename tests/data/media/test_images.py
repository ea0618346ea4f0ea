"""Images become pixels, whatever they come in, or an error says why not."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beft_lightning.data.media.images import read_image
from beft_lightning.errors import DataError
from tests.media import picture

PICTURE = picture(0, 0)
PIXELS = np.asarray(PICTURE)


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def test_all_forms_of_an_image_have_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path)
    content = png(PICTURE)
    forms = [path, str(path), content, {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}]
    for form in [*forms, PIXELS, PICTURE]:
        assert np.array_equal(read_image(form, "RGB", "here"), PIXELS)


def test_colours_are_those_the_model_sees() -> None:
    grey = read_image(PICTURE, "L", "here")
    assert grey.shape == (20, 20, 1)
    assert np.array_equal(read_image(grey, "L", "here"), grey)
    assert np.array_equal(read_image(grey[..., 0], "RGB", "here"), np.repeat(grey, 3, axis=2))


def test_an_image_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    PICTURE.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB", "here"), PIXELS[::-1, ::-1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (png(PICTURE)[:200], "t.csv row 2: not readable as an image"),
        (b"no image", "t.csv row 2: not readable as an image .*cannot identify"),
        ("missing.png", "t.csv row 2: not readable as an image .*No such file"),
        (3, "t.csv row 2: no image but 3. Give a path"),
        (PIXELS / 255, "t.csv row 2: no image but an array of float64"),
        (PIXELS[..., :2, None], "t.csv row 2: not readable as an image"),
        (Image.fromarray(np.full((2, 2), 1000, np.uint16)), "t.csv row 2: an image of mode I;16 has more than 8 bits"),
        ({"bytes": None, "path": None}, "t.csv row 2: no image but None"),
    ],
)
def test_what_is_no_image(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image(value, "RGB", "t.csv row 2")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beft_lightning.data.media.extras.find_spec", lambda module: None)
    with pytest.raises(DataError, match=r"images need the package PIL: pip install 'beft-lightning\[vision\]'"):
        read_image(PICTURE, "RGB", "here")
