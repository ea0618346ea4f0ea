"""Reading checkpoints: damaged, malformed and foreign files are refused, and none runs code."""

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.checkpoint import (
    CHECKSUM_KEY,
    FINGERPRINT_KEY,
    LAYOUTS_KEY,
    MODEL_KEY,
    RNG_KEY,
    TRAINED_KEY,
    check_content,
    read_checkpoint,
)
from beft_lightning.errors import CheckpointError
from tests.tiny import ForeignModule, token_batches

FIRST_VERSION = Path(__file__).parent / "files" / "first_version"
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny fit."""
    folder = tmp_path_factory.mktemp("fit")
    options: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 1, "default_root_dir": folder, "logger": False}
    trainer = Trainer(
        **options,
        callbacks=[BiasSelectionCallback(), AdapterCheckpoint()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ForeignModule(), token_batches())
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


class Validated(ForeignModule):
    """One that can be validated."""

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        pass


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


def test_a_resumed_fit_runs_no_code_either(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    """Nobody has to ask for weights_only."""
    torch.save({"state_dict": Evil(tmp_path / "pwned")}, tmp_path / "evil.ckpt")
    trainer = make_trainer(callbacks=[AdapterCheckpoint()])
    with pytest.raises(CheckpointError, match="which is never executed"):
        trainer.fit(ForeignModule(), token_batches(), ckpt_path=tmp_path / "evil.ckpt")
    assert not (tmp_path / "pwned").exists()


def foreign_files(whole: bytes) -> dict[str, bytes | Any]:
    """Content that is no checkpoint: bytes as they are, anything else through torch.save."""
    return {
        "empty": b"",
        "text": b"hello\n",
        "pickle": pickle.dumps("hello"),
        "cut": whole[:2000],
        "cut_late": whole[:-100],
        "number": 3,
        "list": [torch.zeros(2)],
        "state": {"state_dict": 3},
    }


@pytest.mark.parametrize("name", foreign_files(b""))
def test_a_damaged_or_foreign_file_is_refused(
    name: str, checkpoint: Path, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """By what reads the file alone and by a fit."""
    content = foreign_files(checkpoint.read_bytes())[name]
    path = tmp_path / f"{name}.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"{name}.ckpt: "):
        read_checkpoint(path)
    trainer = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=2)
    with pytest.raises(CheckpointError, match=f"{name}.ckpt: "):
        trainer.fit(ForeignModule(), token_batches(), ckpt_path=path)


def test_a_file_that_is_missing_or_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not a Lightning checkpoint"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_no_single_flipped_bit_gives_other_content(checkpoint: Path, tmp_path: Path) -> None:
    """torch alone loads more than half of them."""
    whole = checkpoint.read_bytes()
    expected = pickle.dumps(plain(torch.load(checkpoint, weights_only=True)))
    path = tmp_path / "flipped.ckpt"
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            content = read_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            assert pickle.dumps(plain(content)) == expected
    assert refused > 75


def plain(value: Any) -> Any:
    """Content without tensors, for a comparison."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return [[plain(key), plain(entry)] for key, entry in value.items()]
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else repr(value)


def rewrite(path: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a checkpoint with other content and whole checksums of the archive."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


def change_value(content: dict[str, Any]) -> None:
    content["state_dict"][content[TRAINED_KEY][0]][0] += 1e-6


@pytest.mark.parametrize(
    "change",
    [
        change_value,
        lambda content: content[TRAINED_KEY].reverse(),
        lambda content: next(iter(content[FINGERPRINT_KEY].values())).__setitem__(1, 0.5),
        lambda content: content["state_dict"].pop("running"),
    ],
)
def test_values_and_records_other_than_the_saved_ones_are_refused(
    change: Callable[[dict[str, Any]], Any], checkpoint: Path, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    path = rewrite(checkpoint, tmp_path / "changed.ckpt", change)
    with pytest.raises(CheckpointError, match=r"changed.ckpt: damaged: .* checksum differs"):
        read_checkpoint(path)
    for command in ("fit", "validate"):
        trainer = make_trainer(callbacks=[AdapterCheckpoint()], max_epochs=2)
        with pytest.raises(CheckpointError, match="checksum differs"):
            getattr(trainer, command)(Validated(), token_batches(), ckpt_path=path)


def _layout(parts: dict[str, Any]) -> dict[str, Any]:
    return {"parts": parts, "groups": 1, "bias": "bias"}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (TRAINED_KEY, None, "'beft_trained' is no list of names"),
        (TRAINED_KEY, [1], "'beft_trained' is no list of names"),
        (TRAINED_KEY, ["nobody"], "'nobody' was trained, and there is no value of it"),
        (TRAINED_KEY, ..., "there is no 'beft_trained'"),
        (FINGERPRINT_KEY, ..., "there is no 'beft_fingerprint'"),
        (FINGERPRINT_KEY, ["a"], "'beft_fingerprint' does not identify weights"),
        (FINGERPRINT_KEY, {"a": ["torch.float32"]}, "'beft_fingerprint' does not identify weights"),
        (RNG_KEY, ..., "there is no 'beft_rng'"),
        (RNG_KEY, 3, "'beft_rng' is no list of states"),
        (RNG_KEY, [None], "'beft_rng' is no list of states"),
        (RNG_KEY, [{"torch": 1}], "holds no states of random number generators"),
        (MODEL_KEY, "bert", "'beft_model' has no valid 'auto_class'"),
        (MODEL_KEY, {"auto_class": "AutoModelForCausalLM", "backbone": 1}, "'beft_model' has no valid 'backbone'"),
        (LAYOUTS_KEY, [1], "'beft_layouts' does not say how"),
        (LAYOUTS_KEY, {"net": 1}, "'beft_layouts' does not say how"),
        (LAYOUTS_KEY, {"net": {"parts": {"query": 1, "key": 1}, "groups": 1}}, "'beft_layouts' does not say how"),
        (LAYOUTS_KEY, {"net": _layout({"query": 1})}, "'beft_layouts' does not say how"),
        (LAYOUTS_KEY, {"net": _layout({"query": 1, "key": "1"})}, "'beft_layouts' does not say how"),
        (LAYOUTS_KEY, {"net": _layout({"query": 1, "key": 1})}, "divides the bias 'bias' of 'net', which this model"),
        (CHECKSUM_KEY, 3, "checksum differs"),
    ],
)
def test_malformed_records_are_refused(
    key: str, value: Any, problem: str, checkpoint: Path, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    def change(content: dict[str, Any]) -> None:
        content.pop(CHECKSUM_KEY, None)
        content.pop(key, None)
        content |= {} if value is ... else {key: value}

    path = rewrite(checkpoint, tmp_path / "malformed.ckpt", change)
    trainer = make_trainer(callbacks=[BiasSelectionCallback(), AdapterCheckpoint()], max_epochs=2)
    with pytest.raises(CheckpointError, match=problem):
        trainer.fit(ForeignModule(), token_batches(), ckpt_path=path)


@pytest.mark.parametrize("path", sorted(FIRST_VERSION.glob("*/last.ckpt")), ids=lambda path: path.parent.name)
def test_checkpoints_of_the_first_version_have_no_checksum_and_load(path: Path) -> None:
    content = read_checkpoint(path)
    assert CHECKSUM_KEY not in content
    assert check_content(content, path) is content
