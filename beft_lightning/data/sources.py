"""Read a split of a benchmark: from a local folder in the original format, or from the hub."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beft_lightning.errors import DataError

#: Other names that the original archives give to a split.
_FILE_NAMES = {
    "train": ("train",),
    "validation": ("validation", "dev", "val"),
    "validation_matched": ("validation_matched", "dev_matched"),
    "validation_mismatched": ("validation_mismatched", "dev_mismatched"),
}
#: UTF-8 with or without a byte-order mark, as MRPC's files have.
_ENCODING = "utf-8-sig"
#: The parser's errors: of wrong syntax, and of objects that are nested too deeply.
_NO_JSON = (ValueError, RecursionError)
#: The columns in which benchmarks number their rows: GLUE, SuperGLUE, SQuAD, DROP.
ID_COLUMNS = ("index", "idx", "id", "query_id")
#: The columns of a row by name.
Row = Mapping[str, Any]
#: A row behind the place where it stands: ``file:line``.
Located = tuple[str, Row]


def file_id(row: Row) -> Any:
    """Return the id that a row has in its file; None if it has none."""
    return next((row[name] for name in ID_COLUMNS if name in row), None)


def is_empty(value: Any) -> bool:
    """Return whether a cell holds nothing: no value, no number, or white space alone."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # NaN


def local_rows(folder: Path, name: str, split: str, suffix: str, header: Sequence[str] = ()) -> Iterator[Located]:
    """Yield the rows of a split's original file, each with its place for error messages.

    Args:
        folder: The folder that holds the task's files.
        name: The task's name, for error messages.
        split: ``train`` or one of the task's evaluation splits.
        suffix: Suffix of the file; see :func:`original_rows`.
        header: Column names, if a TSV file has no header line of its own.

    Raises:
        DataError: If the file is missing or malformed.
    """
    names = [f"{file}{suffix}" for file in _FILE_NAMES.get(split, (split,))]
    path = next((folder / file for file in names if (folder / file).is_file()), None)
    if path is None:
        raise DataError(
            f"{folder}: no {' or '.join(names)} for the {split} split of {name}. Set `data_dir` to the folder "
            "that holds the benchmarks' original files, or leave it out to use the hub."
        )
    yield from original_rows(path, header)


def original_rows(path: Path, header: Sequence[str] = ()) -> Iterator[Located]:
    """Yield the rows of a benchmark's original file, each with its place for error messages.

    Args:
        path: The file: ``.tsv``, ``.jsonl`` (an object a line) or ``.json`` (SQuAD's and DROP's collections).
        header: Column names, if a TSV file has no header line of its own.

    Raises:
        DataError: If the file is malformed.
    """
    readers = {".tsv": lambda: _read_tsv(path, header), ".jsonl": lambda: _read_jsonl(path)}
    last = f"{path}"
    try:
        for where, row in readers.get(path.suffix.lower(), lambda: _read_json(path))():
            last = where
            yield where, row
    except UnicodeDecodeError as error:
        raise DataError(f"{last} or soon after: not readable as UTF-8 text ({error}).") from error


def hub_rows(hub: tuple[str, str | None], split: str, hub_id: str | None, revision: str | None) -> Iterator[Located]:
    """Return the rows of a split as ``datasets.load_dataset`` gives them, each with its place for error messages.

    Args:
        hub: Dataset id and configuration on the hub.
        split: Name of the split.
        hub_id: Dataset id or local folder to use instead; if it lacks the configuration, its own one.
        revision: Branch, tag or commit of the dataset.

    Raises:
        DataError: If it cannot be loaded.
    """
    from datasets import get_dataset_config_names, load_dataset

    name, configuration = hub_id or hub[0], hub[1]
    try:
        # The user's own copy of the data need not have the benchmark's configurations.
        if hub_id is not None and configuration not in get_dataset_config_names(name, revision=revision):
            configuration = None
        dataset = load_dataset(name, configuration, split=split, revision=revision)
    except Exception as error:  # datasets and the hub raise many kinds
        remedy = (
            "Without network, set `data_dir` to a folder with the benchmarks' original files"
            if isinstance(error, ConnectionError)
            else "Give a data set that `datasets.load_dataset` reads, or set `data_dir` to the original files"
        )
        raise DataError(
            f"{name}: cannot load the {split} split ({type(error).__name__}: {error}). {remedy}."
        ) from error
    where = f"{name}/{configuration or ''}".rstrip("/")
    return ((f"{where} {split} row {i}", dict(row)) for i, row in enumerate(dataset))


def _read_tsv(path: Path, header: Sequence[str]) -> Iterator[Located]:
    # The files are not quoted: fields contain lone quotation marks.
    with path.open(encoding=_ENCODING) as file:
        names = list(header)
        for number, line in enumerate(file, start=1):
            if line == "\n":
                continue
            fields = line.removesuffix("\n").split("\t")
            if not names:
                names = fields
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{path}:{number}: {len(fields)} fields instead of {len(names)} ({', '.join(names)}). "
                    "Mend the row: columns are separated by single tabs, and there is no quoting."
                )
            yield f"{path}:{number}", dict(zip(names, fields, strict=True))


def _read_jsonl(path: Path) -> Iterator[Located]:
    with path.open(encoding=_ENCODING) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except _NO_JSON as error:
                raise DataError(f"{path}:{number}: not JSON ({error}). Each line holds one object.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: a {type(row).__name__}, not an object. Each line holds one object.")
            yield f"{path}:{number}", row


def _read_json(path: Path) -> Iterator[Located]:
    """Return SQuAD's list of articles under ``data``, or DROP's dictionary of passages, as rows."""
    try:
        content = json.loads(path.read_text(encoding=_ENCODING))
    except _NO_JSON as error:
        raise DataError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a {type(content).__name__}, but SQuAD's and DROP's files hold an object.")
    collection = dict(enumerate(content["data"])) if isinstance(content.get("data"), list) else content
    return ((f"{path} [{key}]", row) for key, row in collection.items())
