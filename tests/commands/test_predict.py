"""The command ``predict`` on new texts."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from beft_lightning.__main__ import main
from beft_lightning.errors import DataError
from beft_lightning.predictor import Predictor

TEXTS = ['a "good",\nfilm', "the plot was dull", "None", "good \u2028 film"]


@pytest.fixture
def checkpoint(argv: Any, out: Path) -> str:
    assert main(argv("fit", "--model.tune", "value")) == 0
    return str(out / "version_0" / "checkpoints" / "last.ckpt")


def predicted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("name", ["new.csv", "new.jsonl", "new.parquet", "new.txt", "-"])
def test_rows_of_every_input_keep_their_columns_and_order(
    name: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, path, target = pd.DataFrame({"sentence": TEXTS, "number": range(4)}), tmp_path / name, tmp_path / "p.jsonl"
    columns = {"sentence", "number"}
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            columns = {"sentence"}
            frame.sentence = frame.sentence.str.replace("\n", " ")
            path.write_text("\n".join(frame.sentence) + "\n", encoding="utf-8")
            monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(frame.sentence) + "\n"))
    source = name if name == "-" else str(path)
    assert main(["predict", "--ckpt_path", checkpoint, "--input", source, "--out", str(target)]) == 0
    rows = predicted(target)
    assert [row["sentence"] for row in rows] == list(frame.sentence)
    assert all(set(row) == {*columns, "label", "probabilities"} for row in rows)
    assert "number" not in columns or [row["number"] for row in rows] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "nowhere.csv"], "--input nowhere.csv: no such file"),
        (["--input", "{here}/empty.txt"], "empty.txt: row 2: column 'sentence' is empty"),
        (["--input", "{here}/table.xls"], "table.xls: unknown type '.xls'; choose one of: .txt, .csv"),
        (["--input", "{here}/other.csv"], "other.csv: row 1: no column 'sentence'.* there are: text"),
        (["--input", "{here}/latin.txt"], "latin.txt: not readable as UTF-8"),
        (["--input", "-", "--out", "p.csv"], "--out p.csv: give the name of a .jsonl file"),
        (["--input", "-", "--config", "x"], "--config x: no such file"),
        (["--input", "-", "--data.task", "sst2"], "unrecognized arguments: --data.task"),
    ],
)
def test_what_a_user_gets_wrong_is_one_message(
    options: list[str], message: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text("a film\n\na plot\n")
    (tmp_path / "table.xls").write_text("")
    (tmp_path / "other.csv").write_text("text\na film\n")
    (tmp_path / "latin.txt").write_bytes(b"\xe9\n")
    options = [option.format(here=tmp_path) for option in options]
    assert main(["predict", "--ckpt_path", checkpoint, "--out", str(tmp_path / "p.jsonl"), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(f"error: .*{message}", error), error
    assert not (tmp_path / "p.jsonl").exists()


def test_a_failure_keeps_the_predictions_of_before(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.txt").write_text("a film\n")
    arguments = ["predict", "--ckpt_path", checkpoint, "--input", str(tmp_path / "new.txt")]
    arguments += ["--out", str(tmp_path / "p.jsonl")]
    assert main(arguments) == 0
    before = (tmp_path / "p.jsonl").read_text()

    def fail(self: Predictor, rows: Any, batch_size: int) -> None:
        raise DataError("no")

    monkeypatch.setattr(Predictor, "predict", fail)
    assert main(arguments) == 2
    assert (tmp_path / "p.jsonl").read_text() == before


def test_last_is_the_newest_checkpoint_below_the_working_folder(
    checkpoint: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    Path("new.txt").write_text("a film")
    assert main(["predict", "--ckpt_path", "last", "--input", "new.txt"]) == 0
    assert len(predicted(Path("predictions.jsonl"))) == 1
