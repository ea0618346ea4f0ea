"""The record of one run, and its file."""

import json
import math
from pathlib import Path

import pytest

from beft_lightning.compared_run import Run
from beft_lightning.errors import BeftError
from tests.commands.conftest import record

FIRST_VERSION = Path(__file__).parent / "files" / "first_version" / "comparison" / "runs"


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = record(best={"accuracy": 0.5}, best_epoch=1, options={"rank": 2}, configuration="abc")
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run


def test_runs_of_the_first_version_are_read() -> None:
    runs = [Run.read(path) for path in sorted(FIRST_VERSION.glob("*.json"))]
    assert [(run.tune, run.configuration, run.diverged) for run in runs] == [("lora", "", False), ("value", "", False)]
    assert runs[1].last["accuracy"] == 0.699999988079071


def test_numbers_that_are_not_finite_are_valid_json(tmp_path: Path) -> None:
    lost = record(last={"accuracy": 0.5, "loss": math.nan}, history=[math.inf], diverged=True)
    lost.write(tmp_path / "run.json")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert content["last"] == {"accuracy": 0.5, "loss": None}
    run = Run.read(tmp_path / "run.json")
    assert run.diverged
    assert math.isnan(run.last["loss"])
    assert run.last["accuracy"] == 0.5


def test_a_file_of_the_first_version_with_nan_is_a_diverged_run(tmp_path: Path) -> None:
    content = json.loads((FIRST_VERSION / "value-seed0.json").read_text())
    content["last"]["loss"] = math.nan
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert Run.read(tmp_path / "run.json").diverged


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b'{"tune": "val', "Unterminated string"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[]", "it holds a list, not an object"),
        (b"{}", "'best' is missing"),
        (b'{"more": 1, %s', "'more' is no part of a run"),
        (b'{"last": {}, %s', "there are no metrics in it"),
        (b'{"last": {"accuracy": "high"}, %s', "a metric is no number .*high"),
    ],
)
def test_a_damaged_file_is_one_message(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "value-seed0.json"
    record().write(path)
    rest = json.loads(path.read_text())
    if b'"last"' in content:
        del rest["last"]
    path.write_bytes(content.replace(b"%s", json.dumps(rest)[1:].encode()))
    with pytest.raises(BeftError, match=rf"value-seed0\.json: not a readable result \(.*{reason}.*Remove this file"):
        Run.read(path)
