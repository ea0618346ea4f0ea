"""The base and the trained values come out of a checkpoint, or an error says why not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from beft_lightning import LanguageTaskModule
from beft_lightning.checkpoint import FINGERPRINT_KEY, MODEL_KEY, RNG_KEY, TRAINED_KEY
from beft_lightning.errors import BackboneError, CheckpointError, ExportError
from beft_lightning.export import export, load_trained
from tests.export.fits import CAUSAL, COPA, SST2, fitted
from tests.tiny import VOCABULARY, make_model, save_backbone


def test_an_adapter_of_pefts_is_not_exported(backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    fitted(LanguageTaskModule(backbone, SST2, tune="lora"), tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match=r"an adapter of peft's \(lora\)"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf")


@pytest.mark.parametrize("form", ["hf", "peft"])
def test_a_prefix_is_not_exported(form: str, decoder: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(decoder, COPA, tune="prefix"), tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match="holds a prefix, which is no part of the model's own weights"):
        export(tmp_path / "a.ckpt", tmp_path / "out", form)


def test_the_base_is_loaded_once_and_stays_as_it_is(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")
    before = {path.name: path.read_bytes() for path in Path(decoder).iterdir()}
    loads = []
    original = CAUSAL.from_pretrained

    def from_pretrained(*args: Any, **options: Any) -> Any:
        loads.append(args)
        return original(*args, **options)

    monkeypatch.setattr(CAUSAL, "from_pretrained", from_pretrained)
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert len(loads) == 1
    assert {path.name: path.read_bytes() for path in Path(decoder).iterdir()} == before


def test_another_base_is_refused_and_a_moved_one_can_be_named(decoder: str, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    Path(decoder).rename(moved)
    try:
        fitted(LanguageTaskModule(str(moved), COPA, tune="value"), tmp_path / "a.ckpt")
    finally:
        moved.rename(decoder)
    with pytest.raises(BackboneError, match="moved': cannot load the model"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf", backbone=decoder)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    torch.manual_seed(1)
    other = make_model("opt", causal=True, vocab_size=len(VOCABULARY) + 1)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="of the same shape: its frozen .* differs"):
        export(tmp_path / "a.ckpt", tmp_path / "out2", "hf", backbone=str(tmp_path / "other"))
    wider = save_backbone(tmp_path / "wider", "opt", causal=True, hidden_size=64, word_embed_proj_dim=64)
    with pytest.raises(CheckpointError, match=r"has shape \(32,\) there and \(64,\) here"):
        export(tmp_path / "a.ckpt", tmp_path / "out2", "hf", backbone=wider)


def test_checkpoints_that_cannot_be_exported_say_why(decoder: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(decoder, COPA, tune="value", random_init=True), tmp_path / "random.ckpt")
    with pytest.raises(CheckpointError, match="trained over random weights"):
        load_trained(tmp_path / "random.ckpt")
    torch.save({"state_dict": module.state_dict()}, tmp_path / "full.ckpt")
    with pytest.raises(CheckpointError, match="full.ckpt: a full checkpoint"):
        load_trained(tmp_path / "full.ckpt")
    foreign = {"state_dict": {"a": torch.zeros(1)}, TRAINED_KEY: ["a"], FINGERPRINT_KEY: {}, RNG_KEY: []}
    torch.save(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="does not say which backbone .* call `merge` or `peft_adapter`"):
        load_trained(tmp_path / "foreign.ckpt")
    content = torch.load(tmp_path / "random.ckpt", weights_only=True)
    content[MODEL_KEY] |= {"random_init": False, "auto_class": "pipeline"}
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="unknown class of model, 'pipeline'"):
        load_trained(tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_trained(tmp_path / "none.ckpt")
