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
            Dataset.from_pandas(frame).save_to_disk(path)
        case "splits":
            DatasetDict({"train": Dataset.from_pandas(frame), "test": Dataset.from_list(ROWS[:1])}).save_to_disk(path)
        case "arrow":
            Dataset.from_pandas(frame).save_to_disk(folder / "saved")
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
    rows = read_table(write(tmp_path, kind), "train").to_list()
    # In the CSV file of a folder, datasets itself takes "None" for a missing value.
    assert rows == [row if kind != "folder" or row["text"] != "None" else {**row, "text": None} for row in ROWS]


def test_a_file_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    table = read_table(write(tmp_path, "csv"), "train")
    assert not table.cache_files
    assert not (tmp_path / "cache").exists()


def test_the_types_of_a_column_are_found_from_all_rows(tmp_path: Path) -> None:
    """In chunks of 10,000 rows, the fraction in the last one would not fit the type of the first chunk."""
    pd.DataFrame({"text": "a", "label": ["1"] * 11_000 + ["2.5"]}).to_csv(tmp_path / "t.csv", index=False)
    assert read_table(tmp_path / "t.csv", "train")[-1]["label"] == 2.5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", "PK", "t.xlsx: unknown type '.xlsx'; files that can be read: .csv, .tsv"),
        ("t.csv", "", "t.csv: not readable as csv .*No columns"),
        ("t.csv", "text,label\n", "t.csv: no rows"),
        ("t.jsonl", "", "t.jsonl: no rows"),
        ("t.csv", "text,label\na,1\nb,1,2\n", "t.csv row 2: 3 cells, and the heading has 2"),
        ("t.csv", "id,text\n1,good,x\n2,bad,y\n", "t.csv row 1: 3 cells, and the heading has 2"),
        ("t.csv", "text,text\na,b\n", "t.csv: the heading has the column 'text' twice"),
        ("t.tsv", 'text\tlabel\n"a\t1\nb"\t2\n', "t.tsv row 1: a cell in quotation marks goes over several rows"),
        ("t.csv", "text,label\n\xe9,1\n", "t.csv: not readable as csv .*utf-8"),
        ("t.jsonl", '{"text": "a"}\n{"text"\n', "t.jsonl: not readable as jsonl .*row 1"),
        ("t.parquet", "hello", "t.parquet: not readable as parquet"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, "train")


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
