"""Errors of the operating system are one message with path and reason; bugs keep their traceback."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch.utils.data import DataLoader, Dataset

from beft_lightning import LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.errors import system_error

Arguments = Callable[..., list[str]]


@pytest.fixture
def argv(backbone: str, sst2_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    """Options of a tiny fit of the value bias; called with a command and further options."""
    config = {
        "trainer": {"max_epochs": 1, "default_root_dir": str(tmp_path / "out"), "enable_progress_bar": False},
        "model": {"backbone": backbone, "tune": "value"},
        "data": {
            "class_path": "beft_lightning.data.Glue",
            "init_args": {"task": "sst2", "data_dir": sst2_dir, "batch_size": 8},
        },
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    return lambda command, *options: [command, "--config", str(tmp_path / "tiny.yaml"), *options]


@pytest.fixture
def message(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that has to fail, and return its one message."""

    def run(arguments: list[str]) -> str:
        assert main(arguments) == 2
        output = capsys.readouterr().err
        assert "Traceback" not in output
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_a_file_where_the_output_should_be(argv: Arguments, message: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = message(argv("fit", "--trainer.default_root_dir", str(tmp_path / "file" / "runs")))
    assert f"{tmp_path}/file" in line
    assert "Not a directory" in line
    assert "A file is where a folder is needed" in line


def test_a_folder_without_the_right_to_write(
    argv: Arguments, message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights do not bind root, so that the refusal is made up."""
    mkdir = os.mkdir

    def refuse(path: Any, *args: Any, **options: Any) -> None:
        if "lightning_logs" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        mkdir(path, *args, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    line = message(argv("fit"))
    assert "lightning_logs" in line
    assert "Permission denied" in line


def test_a_disk_that_is_full_at_the_first_checkpoint(
    argv: Arguments, message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    assert "No space left on device. Free some space" in message(argv("fit"))
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob(".beft*"))


def test_a_real_limit_of_files_in_a_process_of_its_own(argv: Arguments, tmp_path: Path) -> None:
    limit = 16_000  # enough for the log and the configuration, too little for a checkpoint
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "beft_lightning", *argv("fit")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    assert "File too large. Raise the limit of a file's size" in finished.stderr
    assert (tmp_path / "out" / "lightning_logs" / "version_0" / "config.yaml").is_file()
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob(".beft*"))


@pytest.mark.parametrize("command", ["score", "compare"])
def test_an_output_that_is_a_link_to_nowhere(command: str, argv: Arguments, message: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    options = ["--tune", "value"] if command == "compare" else ["--model.tune", "auto"]
    line = message(argv(command, *options, "--out", str(tmp_path / "link")))
    assert "link is a link to" in line
    assert not (tmp_path / "out").exists()


def test_an_export_to_a_link_to_nowhere(message: Any, tmp_path: Path) -> None:
    checkpoint = Path(__file__).parent / "files" / "first_version" / "selected" / "last.ckpt"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    options = ["--checkpoint", str(checkpoint), "--format", "hf", "--out", str(tmp_path / "link")]
    assert "link is a link to" in message(["export", *options])


def test_a_cache_that_cannot_be_written(
    argv: Arguments, message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache" / "below"))
    config = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    config["data"] = {"class_path": "beft_lightning.data.MovieReviews"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    line = message(argv("fit"))
    assert f"{tmp_path}/cache" in line
    assert "Not a directory" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_lack_of_memory(error: Exception, argv: Arguments, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr(LanguageTaskModule, "configure_model", fail)
    assert "out of memory" in message(argv("fit"))


def test_a_bug_keeps_its_traceback(argv: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LanguageTaskModule, "configure_model", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        main(argv("fit"))


class Deadly(Dataset[int]):
    """One whose process dies, or meets an error of its own."""

    def __init__(self, error: str = "") -> None:
        self.error = error

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> int:
        if self.error:
            raise RuntimeError(self.error)
        os._exit(1)


def test_a_dead_process_of_the_data_loader() -> None:
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Deadly(), num_workers=1))
    assert "a process that loads data has died" in str(system_error(raised.value))
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Deadly("a bug"), num_workers=1))
    assert system_error(raised.value) is None


def test_errors_say_path_reason_and_remedy() -> None:
    said = str(system_error(OSError(errno.ENOSPC, "No space left on device", "/runs/last.ckpt")))
    assert said.startswith("/runs/last.ckpt: No space left on device. Free some space")
    assert "b: " in str(system_error(OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")))
    assert str(system_error(OSError("the hub does not answer"))) == "the hub does not answer"
    assert "mapped into memory" in str(system_error(RuntimeError("unable to mmap 100 bytes from file <a>")))
    assert system_error(ValueError("out of memory")) is None
