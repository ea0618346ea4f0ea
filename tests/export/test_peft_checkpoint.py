"""An adapter of PEFT as a checkpoint: what a fit would have written, less its optimizer."""

from pathlib import Path

import pytest
import torch

from beft_lightning import LanguageTaskModule
from beft_lightning.checkpoint import FINGERPRINT_KEY, MODEL_KEY, TRAINED_KEY, read_checkpoint
from beft_lightning.errors import CheckpointError
from beft_lightning.export import export
from beft_lightning.export.peft_checkpoint import write_as_checkpoint
from tests.export.fits import SST2, fitted
from tests.tiny import save_backbone

pytest.importorskip("peft")


def test_it_holds_what_the_fits_checkpoint_holds(backbone: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(backbone, SST2, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "adapter", "peft")
    write_as_checkpoint(tmp_path / "adapter", tmp_path / "b.ckpt", backbone, None, "float32")
    of_fit, of_adapter = read_checkpoint(tmp_path / "a.ckpt"), read_checkpoint(tmp_path / "b.ckpt")
    assert sorted(of_adapter[TRAINED_KEY]) == sorted(of_fit[TRAINED_KEY])
    assert of_adapter[FINGERPRINT_KEY] == of_fit[FINGERPRINT_KEY]
    assert of_adapter[MODEL_KEY]["task"] == of_fit[MODEL_KEY]["task"]
    for name in of_fit[TRAINED_KEY]:
        torch.testing.assert_close(of_adapter["state_dict"][name], of_fit["state_dict"][name], rtol=0, atol=1e-6)


def test_over_another_base_it_is_refused_and_nothing_is_written(backbone: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(backbone, SST2, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "adapter", "peft")
    other = save_backbone(tmp_path / "other", "bert", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="of another model"):
        write_as_checkpoint(tmp_path / "adapter", tmp_path / "b.ckpt", other, None, "float32")
    assert not (tmp_path / "b.ckpt").exists()
