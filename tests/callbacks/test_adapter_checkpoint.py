"""Checkpoints hold what was trained, resume exactly, and refuse what does not fit."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.callbacks.adapter_checkpoint import read_checkpoint
from beft_lightning.errors import CheckpointError
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def fit(make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    """Fit a foreign module with selection and adapter checkpoints; returns module, selection and checkpoint path."""

    def run(epochs: int, folder: str = "a", resume: Path | None = None, module: Any = None, seed: int = 4) -> Any:
        seed_everything(seed, verbose=False)
        module = module or ForeignModule(hidden_dropout_prob=0.2)
        selection = BiasSelectionCallback()
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        trainer = make_trainer(
            callbacks=[selection, saving, AdapterCheckpoint()], max_epochs=epochs, enable_checkpointing=True
        )
        trainer.fit(module, token_batches(), ckpt_path=resume, weights_only=True)
        return module, selection, tmp_path / folder / "last.ckpt"

    return run


def test_the_saved_keys_are_the_trainable_names_and_the_buffers(fit: Any) -> None:
    module, selection, path = fit(1)
    saved = torch.load(path, weights_only=True)["state_dict"]
    buffers = {name for name in module.state_dict() if name not in dict(module.named_parameters())}
    assert set(saved) == set(selection.trained) | buffers
    assert "running" in saved


def test_a_resumed_run_equals_the_uninterrupted_one(fit: Any) -> None:
    """Bit for bit, although dropout and the loader's order come from the global random number generator."""
    whole, selection, _ = fit(4)
    first, _, path = fit(2, "first")
    # Another seed in the resuming process must not matter.
    second, resumed, _ = fit(4, "second", resume=path, module=ForeignModule(hidden_dropout_prob=0.2), seed=99)
    assert first.losses + second.losses == whole.losses
    assert len(second.losses) == 16
    torch.testing.assert_close(dict(second.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
    assert resumed.selected == selection.selected
    assert resumed.scores == selection.scores
    assert resumed.seconds == 0  # the selection was not made again


def test_validation_finds_the_trained_values(fit: Any, make_trainer: MakeTrainer) -> None:
    trained, _, path = fit(1)
    fresh = ForeignModule(hidden_dropout_prob=0.2)
    fresh.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=False)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: ForeignModule("opt"), "holds 'net.bert.encoder.layer.0.*', which this model lacks"),
        (
            lambda: ForeignModule(hidden_size=16, num_attention_heads=2),
            r"has shape \(32,\) there and \(16,\) here",
        ),
        (lambda: ForeignModule(vocab_size=30), "it had .* parameters, this one has"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(other: Any, message: str, fit: Any) -> None:
    _, _, path = fit(1)
    module = other()
    with pytest.raises(CheckpointError, match=message):
        fit(2, "b", resume=path, module=module)
    assert module.losses == []


def test_a_checkpoint_over_other_frozen_weights_is_refused(fit: Any) -> None:
    _, _, path = fit(1)
    module = ForeignModule()
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.mul_(1.5)
    with pytest.raises(CheckpointError, match="another model of the same size: its frozen .*embeddings"):
        fit(2, "b", resume=path, module=module)


def test_the_same_weights_in_bf16_pass(fit: Any) -> None:
    _, _, path = fit(1)
    module = ForeignModule()
    embeddings = module.net.get_input_embeddings().weight
    embeddings.data = embeddings.data.bfloat16().float()
    fit(1, "b", resume=path, module=module)


class Evil:
    """What an attacker would put into a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_reading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    torch.save({"state_dict": Evil(tmp_path / "pwned")}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="which is never executed"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "pwned").exists()


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, fit: Any) -> None:
    _, _, path = fit(1)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cut.ckpt: not a readable checkpoint"):
        read_checkpoint(cut)
    text = tmp_path / "text.ckpt"
    text.write_bytes(pickle.dumps("hello"))
    with pytest.raises(CheckpointError, match="text.ckpt: "):
        read_checkpoint(text)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not a Lightning checkpoint"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "none.ckpt")
