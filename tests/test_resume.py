"""Which checkpoint a name stands for."""

import os
from pathlib import Path

import pytest

from beft_lightning.errors import CheckpointError
from beft_lightning.resume import HPC, LAST, LAST_IF_ANY, find_checkpoint


def write(path: Path, age: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (1000 - age, 1000 - age))
    return path


def test_last_is_the_newest_of_all_versions(tmp_path: Path) -> None:
    write(tmp_path / "lightning_logs/version_10/checkpoints/last.ckpt", age=5)
    newest = write(tmp_path / "lightning_logs/version_9/checkpoints/last-v1.ckpt", age=1)
    write(tmp_path / "lightning_logs/version_9/checkpoints/last-v2.ckpt", age=2)
    write(tmp_path / "checkpoints/last.ckpt", age=3)
    write(tmp_path / "checkpoints/epoch=1-last.ckpt", age=0)
    write(tmp_path / "checkpoints/last_good.ckpt", age=0)
    assert find_checkpoint(LAST, tmp_path) == newest
    assert find_checkpoint(LAST_IF_ANY, tmp_path) == newest


def test_a_checkpoint_may_be_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoints/last.ckpt/adapter.ckpt", age=0).parent
    assert find_checkpoint(LAST, tmp_path) == folder


def test_hpc_is_the_one_with_the_greatest_number(tmp_path: Path) -> None:
    write(tmp_path / "hpc_ckpt_9.ckpt", age=0)
    write(tmp_path / "hpc_ckpt_10.ckpt", age=5)
    write(tmp_path / "below/hpc_ckpt_11.ckpt", age=0)
    assert find_checkpoint(HPC, tmp_path) == tmp_path / "hpc_ckpt_10.ckpt"


@pytest.mark.parametrize("name", [LAST, HPC])
def test_none_is_an_error_that_says_where_it_looked(name: str, tmp_path: Path) -> None:
    for required in (True, False):
        with pytest.raises(CheckpointError, match=f"--ckpt_path {name}: there is no .* {tmp_path / 'out'}"):
            find_checkpoint(name, tmp_path / "out", required=required)


def test_one_name_allows_for_none(tmp_path: Path) -> None:
    assert find_checkpoint(LAST_IF_ANY, tmp_path / "out", required=False) is None
    with pytest.raises(CheckpointError, match="there is no last.ckpt"):
        find_checkpoint(LAST_IF_ANY, tmp_path)
