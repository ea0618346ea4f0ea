"""The folder of adapters: what is served, what is not, and why."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.checkpoint import ADAPTER_FILE
from beft_lightning.errors import CheckpointError
from beft_lightning.export.peft import ADAPTER_CONFIG
from beft_lightning.serving.folder import AdapterFolder


class _Bank:
    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def add(self, name: str, path: Path) -> None:
        content = next(p for p in (path / ADAPTER_CONFIG, path / ADAPTER_FILE, path) if p.is_file()).read_text()
        if content == "other base":
            raise CheckpointError(f"{path.name}: trained over 'there'; the base here is 'here'")
        self.held[name] = content

    def remove(self, name: str) -> None:
        del self.held[name]


@pytest.fixture
def bank() -> _Bank:
    return _Bank()


@pytest.fixture
def folder(bank: _Bank, tmp_path: Path) -> Any:
    (tmp_path / "adapters").mkdir()
    return AdapterFolder(tmp_path / "adapters", bank.add, bank.remove)


def _put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_adapters_come_change_and_go(folder: AdapterFolder, bank: _Bank, tmp_path: Path) -> None:
    place = tmp_path / "adapters"
    _put(place / "one.ckpt", "a")
    _put(place / "two" / ADAPTER_CONFIG, "b")
    _put(place / "three.ckpt" / ADAPTER_FILE, "c")
    _put(place / "notes.txt", "no adapter")
    assert folder.scan()
    assert bank.held == {"one": "a", "two": "b", "three": "c"}
    assert not folder.scan()
    _put(place / "one.ckpt", "changed")
    _put(place / "three.ckpt" / ADAPTER_FILE, "changed too")
    assert folder.scan()
    assert (bank.held["one"], bank.held["three"]) == ("changed", "changed too")
    shutil.rmtree(place / "three.ckpt")
    (place / "one.ckpt").unlink()
    assert folder.scan()
    assert folder.served == [*bank.held] == ["two"]


def test_what_cannot_be_served_is_listed_and_the_rest_is_served(
    folder: AdapterFolder, bank: _Bank, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, outside = tmp_path / "adapters", tmp_path / "outside"
    _put(place / "good.ckpt", "a")
    _put(place / "foreign.ckpt", "other base")
    _put(place / "twice.ckpt", "a")
    _put(place / "twice" / ADAPTER_CONFIG, "a")
    _put(place / "empty" / "readme.md", "a")
    _put(place / "whole" / "config.json", "{}")
    _put(place / "b ad.ckpt", "a")
    _put(place / "-first.ckpt", "a")
    _put(place / "b%2Fc.ckpt", "a")
    _put(place / f"{'n' * 101}.ckpt", "a")
    _put(place / "base.ckpt", "a")
    _put(outside / "secret.ckpt", "a")
    _put(outside / ADAPTER_CONFIG, "a")
    (place / "link.ckpt").symlink_to(outside / "secret.ckpt")
    (place / "linked").symlink_to(outside)
    os.mkfifo(place / "pipe.ckpt")  # reading it would wait for ever
    (place / "piped").mkdir()
    os.mkfifo(place / "piped" / ADAPTER_CONFIG)
    (place / "inside").mkdir()
    (place / "inside" / ADAPTER_CONFIG).symlink_to(outside / ADAPTER_CONFIG)
    (place / "deep.ckpt").mkdir()
    (place / "deep.ckpt" / ADAPTER_FILE).symlink_to(outside / "secret.ckpt")
    assert folder.scan()
    assert bank.held == {"good": "a"}
    for name, reason in {
        "foreign": "trained over 'there'; the base here is 'here'",
        "twice": "twice and twice.ckpt have one name",
        "empty": f"has neither {ADAPTER_CONFIG} nor {ADAPTER_FILE}",
        "whole": "it is a whole model. Serve the checkpoint that it was exported from",
        "b ad": "no name of an adapter",
        "-first": "no name of an adapter",
        "b%2Fc": "no name of an adapter",
        "n" * 101: "no name of an adapter",
        "base": "'base' is the base's",
        "link": "link.ckpt is a link",
        "linked": "linked is a link",
        "pipe": "pipe.ckpt is no file",
        "piped": f"piped/{ADAPTER_CONFIG} is no file",
        "inside": f"inside/{ADAPTER_CONFIG} is a link",
        "deep": f"deep.ckpt/{ADAPTER_FILE} is a link",
    }.items():
        assert reason in folder.broken[name]
        assert f"adapter {name} is not served" in caplog.text
    # Reasons that go away are forgotten, and an adapter that breaks is withdrawn.
    (place / "twice.ckpt").unlink()
    _put(place / "good.ckpt", "other base")
    assert folder.scan()
    assert bank.held == {"twice": "a"}
    assert "twice" not in folder.broken
    assert "good" in folder.broken


def test_a_folder_that_disappears_leaves_what_was_read(folder: AdapterFolder, bank: _Bank, tmp_path: Path) -> None:
    place = tmp_path / "adapters"
    _put(place / "one.ckpt", "a")
    folder.scan()
    place.rename(tmp_path / "elsewhere")
    assert folder.scan()
    assert "served on" in str(folder.problem)
    assert bank.held == {"one": "a"}
    assert not folder.scan()
    (tmp_path / "elsewhere").rename(place)
    assert folder.scan()
    assert folder.problem is None
    assert bank.held == {"one": "a"}
