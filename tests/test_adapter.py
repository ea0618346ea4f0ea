"""Trained values leave a module and come back into a fresh one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

import beft_lightning
from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule, load_adapter
from beft_lightning.data import Glue
from beft_lightning.errors import CheckpointError
from tests.tiny import ForeignModule, logits, save_backbone, token_batches

MakeTrainer = Callable[..., Trainer]
FORMS = ("bert", "gpt2", "llama", "falcon multi-query")


def fitted(form: str, trainer: Trainer, path: Path) -> ForeignModule:
    module = ForeignModule(form, learning_rate=1e-2, biases=False)
    trainer.fit(module, token_batches())
    trainer.save_checkpoint(path)
    return module


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("full", [False, True])
def test_a_fresh_module_computes_what_the_fitted_one_did(
    form: str, full: bool, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    callbacks = [BiasSelectionCallback("fixed", ["value"], head="none"), *([] if full else [AdapterCheckpoint()])]
    module = fitted(form, make_trainer(callbacks=callbacks), tmp_path / "a.ckpt")
    fresh = ForeignModule(form, biases=False)
    assert not torch.equal(logits(fresh.net), logits(module.net))
    fresh.extra.load_state_dict(module.extra.state_dict())
    load_adapter(fresh, tmp_path / "a.ckpt")
    assert torch.equal(logits(fresh.net), logits(module.net))
    load_adapter(fresh, tmp_path / "a.ckpt")  # It has the structure already.
    assert torch.equal(logits(fresh.net), logits(module.net))


def test_values_come_back_into_a_bare_model_under_its_own_names(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """A module of any kind, under the names of the fit."""
    module = fitted(
        "gpt2",
        make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value"], head="none"), AdapterCheckpoint()]),
        tmp_path / "a.ckpt",
    )
    plain = torch.nn.Module()
    fresh = ForeignModule("gpt2")
    fresh.extra.load_state_dict(module.extra.state_dict())
    for name, child in fresh.named_children():
        plain.add_module(name, child)
    plain.register_buffer("running", torch.zeros(()))
    load_adapter(plain, tmp_path / "a.ckpt")
    assert torch.equal(logits(plain.get_submodule("net")), logits(module.net))


@pytest.mark.parametrize("full", [False, True])
def test_another_model_is_refused_and_not_touched(full: bool, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [BiasSelectionCallback("fixed", ["value"]), *([] if full else [AdapterCheckpoint()])]
    fitted("bert", make_trainer(callbacks=callbacks), tmp_path / "a.ckpt")
    other = ForeignModule("opt")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="another model"):
        load_adapter(other, tmp_path / "a.ckpt")
    torch.testing.assert_close(dict(other.state_dict()), before, rtol=0, atol=0)


def test_other_frozen_weights_are_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()]
    fitted("bert", make_trainer(callbacks=callbacks), tmp_path / "a.ckpt")
    sibling = ForeignModule()
    with torch.no_grad():
        sibling.net.get_input_embeddings().get_parameter("weight").mul_(1.01)
    with pytest.raises(CheckpointError, match="another model of the same shape"):
        load_adapter(sibling, tmp_path / "a.ckpt")


def test_a_language_task_module_is_loaded_and_says_so_in_load_from_checkpoint(
    sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "gpt2", "gpt2")
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8)
    module = LanguageTaskModule(backbone, data.task, learning_rate=1e-2)
    trainer = make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value"]), AdapterCheckpoint()])
    trainer.fit(module, datamodule=data)
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    fresh = LanguageTaskModule(backbone, data.task)
    load_adapter(fresh, path)
    assert torch.equal(logits(fresh.model), logits(module.model))
    with pytest.raises(CheckpointError, match=r"call beft_lightning\.load_adapter\(module, path\)"):
        LanguageTaskModule.load_from_checkpoint(path, strict=False, backbone=backbone, task=data.task)


def test_a_missing_or_damaged_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_adapter(ForeignModule(), tmp_path / "none.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_adapter(ForeignModule(), tmp_path / "damaged.ckpt")


def test_it_is_a_public_name() -> None:
    assert beft_lightning.load_adapter is load_adapter
    assert "load_adapter" in beft_lightning.__all__
