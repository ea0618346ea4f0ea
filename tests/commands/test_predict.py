"""The command ``predict`` on new texts."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from beft_lightning import LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.commands.predict import predict, read_inputs
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, TaskRecord
from beft_lightning.errors import BeftError, DataError
from beft_lightning.predictor import Predictor
from tests.export.fits import fitted

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
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    source = name if name == "-" else str(path)
    assert main(["predict", "--ckpt_path", checkpoint, "--input", source, "--out", str(target)]) == 0
    rows = predicted(target)
    assert [row["sentence"] for row in rows] == list(frame.sentence)
    assert all(set(row) == {*columns, "label", "probabilities"} for row in rows)
    number = str if path.suffix in (".csv", ".tsv") else int  # whose cells are texts
    assert "number" not in columns or [row["number"] for row in rows] == list(map(number, range(4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "nowhere.csv"], "--input nowhere.csv: no such file"),
        (["--input", "{here}/empty.txt"], "empty.txt:2: column 'sentence' is empty"),
        (["--input", "{here}/table.xls"], "table.xls: unknown type '.xls'; choose one of: .txt, .csv"),
        (["--input", "{here}/other.csv"], "other.csv row 1: no column 'sentence'.* there are: text"),
        (["--input", "{here}/folder.csv"], "folder.csv: is a folder. Give a file in it"),
        (["--input", "{here}/few.jsonl"], "few.jsonl:4: no column 'sentence'.* there are: text"),
        (["--input", "{here}/bare.csv"], "bare.csv: no heading"),
        (["--input", "{here}/latin.txt"], "latin.txt: not readable as UTF-8"),
        (["--input", "-", "--batch_size", "0"], "batch_size 0 must be at least 1"),
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
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "few.jsonl").write_text('{"sentence": "a film"}\n\n\n{"text": "a plot"}\n')
    (tmp_path / "bare.csv").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"\xe9\n")
    options = [option.format(here=tmp_path) for option in options]
    assert main(["predict", "--ckpt_path", checkpoint, "--out", str(tmp_path / "p.jsonl"), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(f"error: .*{message}", error), error
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.csv", "sentence\n"), ("none.txt", ""), ("none.jsonl", ""), ("none.json", "[]"), ("none.tsv", "sentence\n")],
)
def test_an_input_without_rows_gives_none(name: str, content: str, checkpoint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    command = [
        "predict",
        "--ckpt_path",
        checkpoint,
        "--input",
        str(tmp_path / name),
        "--out",
        str(tmp_path / "p.jsonl"),
    ]
    assert main(command) == 0
    assert (tmp_path / "p.jsonl").read_text() == ""


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

    monkeypatch.setattr(Predictor, "predict_located", fail)
    assert main(arguments) == 2
    assert (tmp_path / "p.jsonl").read_text() == before


def test_last_is_the_newest_checkpoint_below_the_working_folder(
    checkpoint: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    Path("new.txt").write_text("a film")
    assert main(["predict", "--ckpt_path", "last", "--input", "new.txt"]) == 0
    assert len(predicted(Path("predictions.jsonl"))) == 1


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


QUESTIONS = [{"id": f"q{number}", "question": "what was it ?"} for number in range(2)]
SQUAD = {"data": [{"title": "a film", "paragraphs": [{"context": "it was good", "qas": QUESTIONS}]}]}
ANSWERS = [{"idx": number, "text": "the film"} for number in range(3)]
MULTIRC = {
    "idx": 0,
    "passage": {"text": "it was good", "questions": [{"idx": 0, "question": "what ?", "answers": ANSWERS}]},
}
#: Task -> name and content of an original file without labels, the ids in it, and the official file.
ORIGINALS: dict[str, tuple[TaskRecord, str, str, list[Any], str | None]] = {
    "sst2": (GLUE_TASKS["sst2"], "test.tsv", 'index\tsentence\n0\ta "good film\n1\t"bad\n', ["0", "1"], "SST-2.tsv"),
    "mnli": (
        GLUE_TASKS["mnli"],
        "test_mismatched.tsv",
        "index\tsentence1\tsentence2\n0\tthe film\tthe plot\n",
        ["0"],
        "MNLI-mm.tsv",
    ),
    "sst2 with a prompt": (PROMPT_TASKS["sst2"], "t.tsv", "index\tsentence\n0\ta film\n", ["0"], "SST-2.tsv"),
    "boolq": (
        PROMPT_TASKS["boolq"],
        "test.jsonl",
        '{"question": "was it good", "passage": "the film", "idx": 0}\n',
        [0],
        "BoolQ.jsonl",
    ),
    "multirc": (
        PROMPT_TASKS["multirc"],
        "test.jsonl",
        json.dumps(MULTIRC),
        [{"paragraph": 0, "question": 0, "answer": number} for number in range(3)],
        "MultiRC.jsonl",
    ),
    "squad": (PROMPT_TASKS["squad"], "test.json", json.dumps(SQUAD), ["q0", "q1"], None),
}


@pytest.mark.parametrize("name", list(ORIGINALS))
def test_original_files_keep_their_ids_and_become_official_ones(
    name: str, backbone: str, decoder: str, tmp_path: Path
) -> None:
    task, file, content, ids, official = ORIGINALS[name]
    (tmp_path / file).write_text(content)
    base = backbone if task.adds_head else decoder
    fitted(LanguageTaskModule(base, replace(task, max_length=64), tune="value"), tmp_path / "a.ckpt")
    command = ["predict", "--ckpt_path", str(tmp_path / "a.ckpt"), "--input", str(tmp_path / file)]
    command += ["--out", str(tmp_path / "p.jsonl")]
    assert main([*command, *(["--submission", str(tmp_path / "official")] if official else [])]) == 0
    rows = predicted(tmp_path / "p.jsonl")
    assert [next(row[column] for column in ("index", "idx", "id") if column in row) for row in rows] == ids
    if official is None:
        assert all(isinstance(row["text"], str) for row in rows)
        return
    assert [path.name for path in (tmp_path / "official").iterdir()] == [official]
    lines = (tmp_path / "official" / official).read_text().splitlines()
    assert len(lines) == {"multirc": 1, "sst2": 3}.get(name, len(rows) + official.endswith(".tsv"))


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("t.csv", 'id,text\n007,"a, b"\n\n01.0,\n', [{"id": "007", "text": "a, b"}, {"id": "01.0", "text": ""}]),
        ("t.TSV", "text\tzip\nx\t01234\ny\n", [{"text": "x", "zip": "01234"}, {"text": "y", "zip": None}]),
        (
            "t.jsonl",
            '{"a": 1, "d": "2020-01-01T00:00:00"}\n{"a": 2.5}\n',
            [{"a": 1, "d": "2020-01-01T00:00:00"}, {"a": 2.5}],
        ),
    ],
)
def test_rows_keep_their_cells(name: str, content: str, rows: list[Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    own = replace(GLUE_TASKS["sst2"], name="own", hub=("", None))
    assert [repr(row) for _, row in read_inputs(str(tmp_path / name), own)] == list(map(repr, rows))


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(BeftError, match="rows.jsonl: is the input, which it would replace"):
        predict("a.ckpt", str(tmp_path / "rows.jsonl"), str(tmp_path / "rows.jsonl"))


def test_a_submission_that_cannot_be_written(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it could never be, nothing is predicted; where rows are missing, the predictions are there."""
    fitted(LanguageTaskModule(backbone, GLUE_TASKS["sst2"], tune="value"), tmp_path / "a.ckpt")
    own = replace(GLUE_TASKS["sst2"], name="own", hub=("", None))
    fitted(LanguageTaskModule(backbone, own, tune="value"), tmp_path / "own.ckpt")
    (tmp_path / "test.tsv").write_text("index\tsentence\n1\ta film\n")
    (tmp_path / "taken" / "SST-2.tsv").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for checkpoint, submission, message, written in (
        ("own.ckpt", "official", "task 'own' has no official file", False),
        ("a.ckpt", "taken", "SST-2.tsv is a folder", False),
        ("a.ckpt", "file", "file is a file: give a folder", False),
        ("a.ckpt", "test.tsv", "test.tsv is the input or --out, which it would replace", False),
        ("a.ckpt", "official", "test.tsv: no .*SST-2.tsv is written: the row of number 0 is missing", True),
    ):
        command = ["predict", "--ckpt_path", str(tmp_path / checkpoint), "--input", str(tmp_path / "test.tsv")]
        command += ["--out", str(tmp_path / "p.jsonl"), "--submission", str(tmp_path / submission)]
        assert main(command) == 2
        assert re.search(f"error: .*{message}", capsys.readouterr().err)
        assert (tmp_path / "p.jsonl").exists() == written
        assert not (tmp_path / "official").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dev.tsv", "a1\t1\t\tthe film was good\na1\t0\t*\tthe plot\n"),
        ("test.TSV", "index\tsentence\n0\tthe film was good\n1\tthe plot\n"),
    ],
)
def test_original_files_with_and_without_a_header_line(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    rows: Any = read_inputs(str(tmp_path / name), GLUE_TASKS["cola"])
    assert [row["sentence"] for _, row in rows] == ["the film was good", "the plot"]


def test_the_standard_input_is_read_like_a_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    given("\ufeffa film\r\nbon à voir\n".encode())
    assert [text for _, text in read_inputs("-", GLUE_TASKS["sst2"])] == ["a film", "bon à voir"]
    given(b"a f\xe9lm\n")
    with pytest.raises(DataError, match="standard input: not readable as UTF-8 text"):
        read_inputs("-", GLUE_TASKS["sst2"])
