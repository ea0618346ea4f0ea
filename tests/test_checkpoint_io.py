"""Whatever happens while a checkpoint is written, the last one is whole."""

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.checkpoint import CHECKSUM_KEY, read_checkpoint
from beft_lightning.checkpoint_io import AtomicCheckpointIO
from beft_lightning.errors import CheckpointError
from tests.test_files import die, killed
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]
OLD: dict[str, Any] = {"state_dict": {"a": torch.zeros(1000)}}
NEW: dict[str, Any] = {"state_dict": {"a": torch.ones(1000)}}


def same(read: dict[str, Any], written: dict[str, Any]) -> bool:
    return torch.equal(read["state_dict"]["a"], written["state_dict"]["a"])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A checkpoint that is there already."""
    AtomicCheckpointIO().save_checkpoint(OLD, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def die_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(checkpoint: Any, file: Any) -> None:
        file.write(b"PK\x03\x04 half")
        file.flush()
        die()

    monkeypatch.setattr(torch, "save", save)


def die_before_renaming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *paths: die())


@pytest.mark.parametrize("fault", [die_in_the_middle, die_before_renaming])
def test_a_killed_save_leaves_the_last_checkpoint_whole(
    fault: Callable[[pytest.MonkeyPatch], None], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault(patch)
        killed(lambda: AtomicCheckpointIO().save_checkpoint(NEW, target))
    assert same(read_checkpoint(target), OLD)
    assert len(list(target.parent.iterdir())) == 2
    # Whoever resumes from it clears up.
    assert same(AtomicCheckpointIO().load_checkpoint(target), OLD)
    assert list(target.parent.iterdir()) == [target]


def test_no_other_folder_is_written_to(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file from another file system cannot be renamed, only copied over the last checkpoint."""
    monkeypatch.setattr(tempfile, "tempdir", str(target.parent / "missing"))
    monkeypatch.setattr("shutil.copyfileobj", None)
    AtomicCheckpointIO().save_checkpoint(NEW, target)
    assert same(read_checkpoint(target), NEW)
    assert list(target.parent.iterdir()) == [target]


class FullFile:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: Any) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_nothing(
    room: int, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda checkpoint, file: save(checkpoint, FullFile(file, room)))
    for path, files in ((target, [target]), (target.with_name("first") / "last.ckpt", [])):
        with pytest.raises(OSError, match="No space left on device"):
            AtomicCheckpointIO().save_checkpoint(NEW, path)
        assert [file for file in path.parent.iterdir() if file.is_file()] == files
    assert same(read_checkpoint(target), OLD)


def test_a_disk_that_fails_late_keeps_the_last_checkpoint(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems notice only when the content has to be on the disk."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left on device"):
        AtomicCheckpointIO().save_checkpoint(NEW, target)
    assert same(read_checkpoint(target), OLD)
    assert list(target.parent.iterdir()) == [target]


def test_checkpoints_have_a_checksum_and_bare_states_have_not(tmp_path: Path) -> None:
    """Launchers hand the values of another process over as a file without 'state_dict'."""
    AtomicCheckpointIO().save_checkpoint(NEW, tmp_path / "a.ckpt")
    assert isinstance(AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")[CHECKSUM_KEY], str)
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(2)}, tmp_path / "b.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "b.ckpt").keys() == {"a"}
    assert CHECKSUM_KEY not in NEW


def test_remote_checkpoints_are_left_to_lightning_and_checked() -> None:
    url = "memory://checkpoint_io/a.ckpt"
    AtomicCheckpointIO().save_checkpoint(NEW, url)
    content = AtomicCheckpointIO().load_checkpoint(url)
    assert same(content, NEW)
    content["state_dict"]["a"][3] = 5
    TorchCheckpointIO().save_checkpoint(content, url)
    with pytest.raises(CheckpointError, match=r"a.ckpt: damaged"):
        AtomicCheckpointIO().load_checkpoint(url)


def test_urls_of_local_files_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    AtomicCheckpointIO().save_checkpoint(NEW, f"file://{tmp_path}/a.ckpt")
    assert same(AtomicCheckpointIO().load_checkpoint(f"file://{tmp_path}/a.ckpt"), NEW)


@pytest.mark.parametrize("plugins", [[], [AsyncCheckpointIO()]], ids=["plain", "async"])
def test_a_fit_writes_with_it_and_nobody_has_to_ask(
    plugins: list[Any], make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    saving = ModelCheckpoint(tmp_path / "checkpoints", save_last=True, save_top_k=0)
    callbacks = [BiasSelectionCallback(), saving, AdapterCheckpoint()]
    trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, plugins=plugins)
    trainer.fit(ForeignModule(), token_batches())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert CHECKSUM_KEY in read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")


def test_a_fit_that_is_killed_while_it_saves_can_go_on(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint is kept when the process dies in writing the second."""

    def run(epochs: int, resume: Path | None) -> ForeignModule:
        module = ForeignModule()
        saving = ModelCheckpoint(tmp_path / "a", filename="one", save_top_k=-1, enable_version_counter=False)
        callbacks = [BiasSelectionCallback(), saving, AdapterCheckpoint()]
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=epochs)
        trainer.fit(module, token_batches(), ckpt_path=resume)
        return module

    save = torch.save
    written: list[None] = []

    def once(checkpoint: Any, file: Any) -> None:
        if written:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(save(checkpoint, file))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", once)
        killed(lambda: run(3, None))
    path = tmp_path / "a" / "one.ckpt"
    assert read_checkpoint(path)["epoch"] == 0
    resumed, whole = run(3, path), run(3, None)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
