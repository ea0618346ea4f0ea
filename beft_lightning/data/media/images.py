"""Images as arrays of pixels: from files, bytes, arrays and images of Pillow."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from beft_lightning.data.media.extras import check_extra
from beft_lightning.errors import DataError

#: Pillow's names of the colours that models see: grey levels, or red, green and blue.
Mode = Literal["L", "RGB"]


def read_image(value: Any, mode: Mode, where: str) -> NDArray[np.uint8]:
    """Return an image as pixels, turned as its camera was held.

    Args:
        value: A path, the bytes of a file, a mapping with ``bytes`` or ``path`` as ``datasets`` keeps images, an array
            of 8-bit numbers of shape ``(height, width)`` or ``(height, width, channels)``, or an image of Pillow.
        mode: The colours to return.
        where: Place of the image, for the error.

    Returns:
        8-bit numbers of shape ``(height, width, 1)`` for grey levels, else ``(height, width, 3)``.

    Raises:
        DataError: If it cannot be read as an image of 8 bits a channel, or Pillow is missing.
    """
    check_extra("PIL", "vision", "images")
    from PIL import Image, ImageOps

    try:
        image = _opened(value, where)
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"{where}: an image of mode {image.mode} has more than 8 bits a channel: convert it to 8 bits first."
            )
        pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode))
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not readable as an image ({error}).") from error
    return pixels[..., None] if mode == "L" else pixels


def _opened(value: Any, where: str) -> Any:
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping) and {*value} & {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return Image.open(io.BytesIO(value))
    if isinstance(value, str | Path):
        return Image.open(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return Image.fromarray(value.squeeze(-1) if value.ndim == 3 and value.shape[-1] == 1 else value)
    found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"{value!r}"
    raise DataError(
        f"{where}: no image but {found}. Give a path, the bytes of a file, an array of 8-bit numbers (uint8), or an "
        "image of Pillow."
    )
