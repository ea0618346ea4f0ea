"""The folder of a comparison."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from beft_lightning.commands import run_folder
from beft_lightning.commands.run_folder import RunFolder
from beft_lightning.errors import BeftError
from tests.commands.conftest import record


def test_a_folder_belongs_to_the_configuration_that_claims_it_first(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path, "one"), RunFolder(tmp_path, "two")
    first.claim()
    with pytest.raises(BeftError, match=r"another configuration, in config\.yaml, which has no results yet"):
        second.claim()
    first.add(record())
    with pytest.raises(BeftError, match=r"holds results of another configuration.*another --out"):
        RunFolder(tmp_path, "two")
    RunFolder(tmp_path, "one").claim()


def test_of_many_at_once_one_claims_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = run_folder.write_text_atomically
    start = Barrier(4)

    def slowly(path: Path, text: str) -> Path:
        time.sleep(0.05)  # Without a lock, the others check while nothing is written yet.
        return write(path, text)

    def claim(number: int) -> bool:
        folder = RunFolder(tmp_path, f"configuration {number}")
        start.wait()
        try:
            folder.claim()
        except BeftError:
            return False
        return True

    monkeypatch.setattr(run_folder, "write_text_atomically", slowly)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claim, range(4))) == 1


def test_a_run_of_another_configuration_is_not_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "one")
    folder.add(record(configuration=folder.digest))
    folder.add(record(seed=1))  # as the first version wrote it
    assert [run.seed for run in folder.runs()] == [0, 1]
    record("head", configuration=RunFolder(tmp_path / "other", "two").digest).write(folder.path("head", 0))
    for read in (lambda: folder.read("head", 0), folder.runs):
        with pytest.raises(BeftError, match=r"head-seed0\.json: made with another configuration"):
            read()


@pytest.mark.parametrize("changes", [{"learning_rate": 0.5}, {"options": {"rank": 3}}])
def test_runs_of_a_method_with_other_settings_do_not_mix(changes: dict[str, Any], tmp_path: Path) -> None:
    """Also if both were under way when neither had its file."""
    folder = RunFolder(tmp_path, "one")
    folder.add(record())
    with pytest.raises(BeftError, match=r"value-seed0\.json: made with .* is asked for"):
        folder.add(replace(record(seed=1), **changes))
    assert folder.read("value", 1) is None
    folder.add(replace(record("query,value", seed=1), **changes))


def test_runs_are_in_the_order_in_which_they_were_made_and_files_of_measures_are_not_among_them(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path, "one")
    for tune, seed in (("value", 1), ("query,value", 0), ("head", 0)):
        folder.add(record(tune, seed))
    folder.measures_path(["query", "key", "value"], 0).write_text("{}")
    for age, (tune, seed) in enumerate((("head", 0), ("query,value", 0), ("value", 1))):
        set_age(folder.path(tune, seed), age)
    assert [(run.tune, run.seed) for run in folder.runs()] == [("query,value", 0), ("head", 0), ("value", 1)]
    assert [run.tune for run in folder.runs("value")] == ["value"]


def set_age(path: Path, seconds: int) -> None:
    os.utime(path, (1e9 - seconds, 1e9 - seconds))
