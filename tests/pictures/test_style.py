"""What tells lines apart, and where Matplotlib is used."""

from pathlib import Path

import beft_lightning
from beft_lightning.pictures.style import line_styles

PACKAGE = Path(beft_lightning.__file__).parent


def test_lines_differ_without_colours() -> None:
    styles = [(style["marker"], style["linestyle"]) for style in line_styles(8)]
    assert len(set(styles)) == 8


def test_matplotlib_is_imported_in_one_package() -> None:
    using = [path for path in PACKAGE.rglob("*.py") if "matplotlib" in path.read_text(encoding="utf-8")]
    assert {path.parent.name for path in using} == {"pictures"}
