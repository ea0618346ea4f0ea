"""Tables from files, folders and the hub's names."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from beft_lightning.data.table.files import read_table
from beft_lightning.errors import DataError

ROWS = [
    {"text": 'a "good", fine\nfilm', "label": "pos"},
    {"text": "None", "label": "neg"},
    {"text": "Füße \u2028 und", "label": "neg"},
]


def write(folder: Path, kind: str) -> Path:
    """Write the rows with the tools that people use."""
    frame, path = pd.DataFrame(ROWS), folder / f"table.{kind}"
    match kind:
        case "csv" | "tsv":
            frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
        case "json" | "jsonl":
            frame.to_json(path, orient="records", lines=kind == "jsonl")
        case "parquet":
            frame.to_parquet(path)
        case "saved":
            Dataset.from_pandas(frame).save_to_disk(str(path))
        case "splits":
            DatasetDict({"train": Dataset.from_pandas(frame), "test": Dataset.from_list(ROWS[:1])}).save_to_disk(
                str(path)
            )
        case "arrow":
            Dataset.from_pandas(frame).save_to_disk(str(folder / "saved"))
            next((folder / "saved").glob("*.arrow")).rename(path)
        case "folder":
            path.mkdir()
            frame.to_csv(path / "train.csv", index=False)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "arrow", "saved", "splits", "folder"])
def test_every_form_gives_the_rows_that_were_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert read_table(write(tmp_path, kind), "train").to_list() == ROWS


def test_a_file_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    table = read_table(write(tmp_path, "csv"), "train")
    assert not table.cache_files
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", ["t.csv", "t.tsv", "folder/train.csv"])
def test_the_cells_of_a_file_stay_as_they_are_written(place: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    cells = ["01", "1", "1.0", "NA", "null", "None", "True", "9007199254740993", " 1e3", "-"]
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame({"label": cells}).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    source = path if path.parent == tmp_path else path.parent
    assert read_table(source, "train")["label"][:] == cells


def test_types_that_a_folder_declares_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "own").mkdir()
    pd.DataFrame({"label": ["01", "1"]}).to_csv(tmp_path / "own" / "train.csv", index=False)
    card = "---\ndataset_info:\n  features:\n  - name: label\n    dtype: int64\n---\n"
    (tmp_path / "own" / "README.md").write_text(card)
    assert read_table(tmp_path / "own", "train")["label"][:] == [1, 1]


def test_an_empty_line_is_an_empty_cell_where_there_is_one_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\na\n\nb\n")
    (tmp_path / "two.csv").write_text("text,label\na,1\n\nb\n")
    assert read_table(tmp_path / "t.csv", "train")["text"][:] == ["a", "", "b"]
    assert read_table(tmp_path / "two.csv", "train")["label"][:] == ["1", None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", "PK", "t.xlsx: unknown type '.xlsx'; files that can be read: .csv, .tsv"),
        ("t.csv", "", "t.csv: no heading. The first line names the columns"),
        ("t.csv", "text;label\na;1\n", "t.csv: the heading is one cell, 'text;label'. Cells of a .csv file are"),
        ("t.tsv", "text,label\na,1\n", "t.tsv: the heading is one cell, 'text,label'"),
        ("t.csv", "text,label\n", "t.csv: no rows"),
        ("t.jsonl", "", "t.jsonl: no(t readable as jsonl| rows)"),
        ("t.csv", "text,label\na,1\nb,1,2\n", "t.csv row 2: 3 cells, and the heading has 2"),
        ("t.csv", "id,text\n1,good,x\n2,bad,y\n", "t.csv row 1: 3 cells, and the heading has 2"),
        ("t.csv", "text,text\na,b\n", "t.csv: the heading has the column 'text' twice"),
        ("t.tsv", 'text\tlabel\n"a\t1\nb"\t2\n', "t.tsv row 1: a cell in quotation marks goes over several rows"),
        ("t.csv", "text,label\n\xe9,1\n", "t.csv row 1 or soon after: not readable as csv .*utf-8"),
        ("t.csv", 'text,label\na,1\n"b,2\nc,3\n', "t.csv row 2 or soon after: not readable as csv .*unexpected end"),
        ("t.tsv", 'text\tlabel\na\t1\n"b" c\t2\n', "t.tsv row 2 or soon after: not readable as tsv .*expected after"),
        ("t.jsonl", '{"text": "a"}\n{"text"\n', "t.jsonl: not readable as jsonl .*row 1"),
        ("t.parquet", "hello", "t.parquet: not readable as parquet"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, "train")


def test_a_parquet_file_without_rows_is_empty(tmp_path: Path) -> None:
    pd.DataFrame({"text": pd.Series([], dtype=str)}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: no rows"):
        read_table(tmp_path / "t.parquet", "train")


@pytest.mark.parametrize("name", ["nowhere.csv", "/nowhere/train", "a/b/c"])
def test_a_file_that_does_not_exist(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file or folder"):
        read_table(name, "train")


def test_a_name_that_neither_this_machine_nor_the_hub_knows() -> None:
    with pytest.raises(DataError, match="nobody/nothing: no file or folder here, and as a data set of the hub not"):
        read_table("nobody/nothing", "train")


def test_a_split_that_a_folder_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'validation'; there are: train, test"):
        read_table(write(tmp_path, "splits"), "validation")


def test_code_in_a_folder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder: Any = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    with pytest.raises(DataError, match="not readable"):
        read_table(folder, "train")
    assert not (tmp_path / "run").exists()
