"""Read a split of a benchmark: from a local folder in the original format, or from the hub."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from beft_lightning.data.task import Task
from beft_lightning.errors import DataError

#: Other names that the original archives give to a split.
_FILE_NAMES = {
    "train": ("train",),
    "validation": ("validation", "dev", "val"),
    "validation_matched": ("validation_matched", "dev_matched"),
    "validation_mismatched": ("validation_mismatched", "dev_mismatched"),
}
Row = dict[str, Any]


def read_local(folder: Path, task: Task, split: str, suffix: str) -> list[Row]:
    """Read one split of ``task`` from its original file.

    Args:
        folder: The folder that holds the task's files.
        task: What to read.
        split: ``train`` or one of the task's evaluation splits.
        suffix: ``.tsv`` or ``.jsonl``.

    Returns:
        One dictionary per example: the task's text columns, ``label`` (a number) and ``id`` (its place in the file).

    Raises:
        DataError: If the file is missing, malformed, empty, lacks a column or has an unknown label.
    """
    names = [f"{name}{suffix}" for name in _FILE_NAMES[split]]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise DataError(
            f"{folder}: no {' or '.join(names)} for the {split} split of {task.name}. Set `data_dir` to the folder "
            "that holds the benchmarks' original files, or leave it out to use the hub."
        )
    reader = _read_tsv(path, task) if suffix == ".tsv" else _read_jsonl(path)
    return _to_examples(((f"{path}:{line}", row) for line, row in reader), task, f"{path}")


def read_hub(task: Task, split: str, hub_id: str | None, revision: str | None) -> list[Row]:
    """Read one split of ``task`` with ``datasets.load_dataset``; arguments and result as for :func:`read_local`.

    Args:
        task: What to read.
        split: ``train`` or one of the task's evaluation splits.
        hub_id: Dataset id or local folder to use instead of the task's own.
        revision: Branch, tag or commit of the dataset.

    Raises:
        DataError: If it cannot be loaded, or does not fit the task.
    """
    from datasets import load_dataset

    name, configuration = task.hub
    where = f"{hub_id or name}/{configuration}"
    try:
        dataset = load_dataset(hub_id or name, configuration, split=split, revision=revision)
    except Exception as error:  # datasets and the hub raise many kinds
        raise DataError(
            f"{where}: cannot load the {split} split ({type(error).__name__}: {error}). Without network, set "
            "`data_dir` to a folder with the benchmarks' original files."
        ) from error
    # The hub's datasets have the final column names already; the original files' names do no harm.
    return _to_examples(((f"{where} {split} row {i}", dict(row)) for i, row in enumerate(dataset)), task, where)


def _read_tsv(path: Path, task: Task) -> Iterator[tuple[int, Row]]:
    # The files are not quoted (fields contain lone quotation marks), and MRPC begins with a byte-order mark.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = list(task.header) or next(reader, [])
        for fields in reader:
            if len(fields) != len(header):
                raise DataError(
                    f"{path}:{reader.line_num}: {len(fields)} fields instead of {len(header)} ({', '.join(header)}). "
                    "Mend the row: columns are separated by single tabs, and there is no quoting."
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))


def _read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON ({error}). Each line holds one object.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: a {type(row).__name__}, not an object. Each line holds one object.")
            yield number, row


def _to_examples(rows: Iterator[tuple[str, Mapping[str, Any]]], task: Task, source: str) -> list[Row]:
    examples: list[Row] = []
    for place, (where, raw) in enumerate(rows):
        row = {task.columns.get(name, name): value for name, value in raw.items()}
        if missing := [name for name in (*task.text, "label") if name not in row]:
            original = {meant: name for name, meant in task.columns.items()}
            raise DataError(
                f"{where}: no column {', '.join(repr(original.get(name, name)) for name in missing)}, which "
                f"{task.name} needs; there are: {', '.join(map(str, raw))}."
            )
        example = {name: str(row[name]) for name in task.text}
        examples.append({**example, "label": task.label_id(row["label"], where), "id": place})
    if not examples:
        raise DataError(f"{source}: the split is empty; {task.name} needs at least one example.")
    return examples
