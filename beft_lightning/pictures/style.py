"""The look that all pictures share, and their files."""

from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from beft_lightning.files import write_atomically

#: One hue whose brightness falls along the map: it reads the same in grey and for colour-blind readers.
COLOR_MAP = "Blues"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":")


def line_styles(count: int) -> list[dict[str, Any]]:
    """Return options of ``plot`` that tell lines apart by colour, marker and dashes, so also without colours.

    Args:
        count: The number of lines.

    Returns:
        For each line ``color``, ``marker`` and ``linestyle``.
    """
    # Not to the end of the map: its lightest colours are pale on white.
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.78, max(count, 2)))
    marked = zip(colors, cycle(_MARKERS), cycle(_LINES), strict=False)
    return [
        {"color": color, "marker": marker, "linestyle": line, "markersize": 5}
        for color, marker, line in islice(marked, count)
    ]


def save_picture(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG and as SVG.

    Args:
        figure: The figure.
        path: Name of the PNG file; the SVG file stands beside it.

    Returns:
        The path of the PNG file.
    """
    path = Path(path).with_suffix(".png")
    # Without date and random names, the same data gives the same file.
    with mpl.rc_context({"svg.hashsalt": "beft_lightning"}):
        write_atomically(path.with_suffix(".svg"), lambda file: figure.savefig(file, metadata={"Date": None}))
    return write_atomically(path, lambda file: figure.savefig(file, dpi=150))


def read_pixels(path: str | Path) -> np.ndarray:
    """Return the pixels of a PNG file, of shape (height, width, 4), from 0 to 1.

    Args:
        path: The file.
    """
    pixels: np.ndarray = imread(path)
    return pixels
