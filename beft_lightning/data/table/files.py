"""Read a table of the user's own: a file, a folder, or a data set of the hub."""

import csv
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    concatenate_datasets,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)

from beft_lightning.data.table.conll import read_conll
from beft_lightning.errors import DataError

#: Files that ``save_to_disk`` of datasets leaves.
_SAVED = ("dataset_dict.json", "state.json")


def read_table(source: str | Path, split: str) -> Dataset:
    """Read one split of a table.

    Args:
        source: A file of one of :data:`FORMATS`, a folder of ``save_to_disk`` or of such files, or a hub id.
        split: The split wanted: ``train``, ``validation`` or ``test``. A file is one split, whatever its name, and so
            is a folder or data set that has no more than one.

    Returns:
        The rows, at least one.

    Raises:
        DataError: If there is no such file or data set, its type is unknown, it cannot be read, has no such split, or
            has no rows.
    """
    path = Path(source)
    if path.is_file():
        return _filled(read_file(path), source)
    if not path.exists() and _looks_like_a_path(path):
        raise DataError(f"{source}: no such file or folder (looked in {Path.cwd()}).")
    saved = path.is_dir() and any((path / name).is_file() for name in _SAVED)
    try:
        # datasets runs no code of a data set: scripts are refused.
        content = load_from_disk(str(path)) if saved else _load_folder(str(source))
    except DataError:
        raise
    except Exception as error:  # datasets and the hub raise many kinds
        kind = "folder" if path.is_dir() else "no file or folder here, and as a data set of the hub"
        raise DataError(f"{source}: {kind} not readable ({_reason(error)}).") from error
    if isinstance(content, Dataset):
        return _filled(content, source)
    if split not in content and len(content) > 1:
        raise DataError(f"{source}: no split {split!r}; there are: {', '.join(map(str, content))}. Give it as a file.")
    return _filled(content[split] if split in content else next(iter(content.values())), source)


def _load_folder(source: str) -> DatasetDict:
    """Load a folder or a data set of the hub; CSV and TSV files of a folder are read like those that stand alone."""
    builder = load_dataset_builder(source)
    splits = {split: [Path(name) for name in names] for split, names in (builder.config.data_files or {}).items()}
    cells = all(path.suffix.lower() in SEPARATORS and path.is_file() for paths in splits.values() for path in paths)
    if not splits or not cells or builder.info.features is not None:
        return load_dataset(source)
    return DatasetDict(
        {f"{split}": concatenate_datasets([read_file(path) for path in paths]) for split, paths in splits.items()}
    )


def read_file(path: Path) -> Dataset:
    """Read a file of one of :data:`FORMATS`; it may have no rows.

    Raises:
        DataError: If the type is unknown, or the content is not of this type.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: unknown type {path.suffix!r}; files that can be read: {', '.join(FORMATS)}.")
    return FORMATS[path.suffix.lower()](path)


def _load(builder: str, path: Path, **options: Any) -> Dataset:
    """Read a file with one of the readers of datasets."""
    try:
        # datasets writes each file it reads into a cache; the table is kept in memory instead.
        with tempfile.TemporaryDirectory() as cache:
            table: Dataset = load_dataset(
                builder, data_files=str(path), split="train", cache_dir=cache, keep_in_memory=True, **options
            )
    except Exception as error:  # readers raise many kinds
        # How the readers say that a file has no rows; the second is Parquet's.
        said = ("corresponds to no data!", "BatchSize must be greater than 0, got 0")
        if _reason(error).endswith(said) or isinstance(error, StopIteration):
            return Dataset.from_dict({})
        raise DataError(f"{path}: not readable as {path.suffix.lower()[1:]} ({_reason(error)}).") from error
    return table


def read_cells(path: Path) -> list[dict[str, str | None]]:
    """Read a CSV or TSV file with each cell as the text that it is, such as ``007``; None for cells that a row lacks.

    Raises:
        DataError: If the content is not of this type, a row is longer than the heading, or a column stands twice.
    """
    return list(_delimited_rows(path))


def _delimited_rows(path: Path) -> Iterator[dict[str, str | None]]:
    """Yield the rows of a CSV or TSV file."""
    separator = SEPARATORS[path.suffix.lower()]
    csv.field_size_limit(sys.maxsize)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict: a quotation mark that is not closed would swallow the rest of the file.
            lines = csv.reader(file, delimiter=separator, strict=True)
            heading = next(lines, [])
            if not heading:
                raise DataError(f"{path}: no heading. The first line names the columns.")
            if len(heading) == 1 and {*heading[0]} & _WRONG_SEPARATORS - {separator}:
                raise DataError(
                    f"{path}: the heading is one cell, {heading[0]!r}. Cells of a .csv file are separated by commas, "
                    "those of a .tsv file by tabs."
                )
            if twice := [name for name in heading if heading.count(name) > 1]:
                raise DataError(f"{path}: the heading has the column {twice[0]!r} twice: rename one.")
            # In a table of one column, an empty line is an empty cell.
            rows = (line or [""] for line in lines) if len(heading) == 1 else filter(None, lines)
            for number, row in enumerate(rows, start=1):
                _check_row(row, heading, separator, f"{path} row {number}")
                yield dict(zip_longest(heading, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} row {number + 1} or soon after: not readable as {path.suffix.lower()[1:]} ({error}). The file is "
            "UTF-8 text, and quotation marks inside a cell are doubled."
        ) from error


def _check_row(row: Sequence[str], heading: Sequence[str], separator: str, where: str) -> None:
    """Check that a row is not longer than the heading, and no cell of it several rows of a TSV file."""
    if len(row) > len(heading):
        raise DataError(
            f"{where}: {len(row)} cells, and the heading has {len(heading)}. Put a cell that holds the separator into "
            "quotation marks."
        )
    if separator == "\t" and any("\t" in cell and "\n" in cell for cell in row):
        raise DataError(
            f"{where}: a cell in quotation marks goes over several rows. Double the quotation marks that belong to a "
            "text, and put the text into quotation marks."
        )


def _read_delimited(path: Path) -> Dataset:
    """Read a CSV or TSV file; all cells are texts."""
    rows = read_cells(path)
    return Dataset.from_dict({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})


#: Suffix of a file of cells -> what separates them.
SEPARATORS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}
#: What separates the cells of other files that programs write under these suffixes.
_WRONG_SEPARATORS = {",", ";", "\t", "|"}
#: Suffix -> reader.
FORMATS: Mapping[str, Callable[[Path], Dataset]] = {
    **dict.fromkeys(SEPARATORS, _read_delimited),
    ".json": partial(_load, "json"),
    ".jsonl": partial(_load, "json"),
    ".parquet": partial(_load, "parquet"),
    ".arrow": partial(_load, "arrow"),
    ".conll": read_conll,
}


def _filled(table: Dataset, source: str | Path) -> Dataset:
    if not len(table):
        raise DataError(f"{source}: no rows.")
    return table


def _looks_like_a_path(path: Path) -> bool:
    """Return whether a name is none of the hub's, which are ``NAME`` or ``OWNER/NAME``."""
    return path.suffix.lower() in FORMATS or path.is_absolute() or len(path.parts) > 2 or ".." in path.parts


def _reason(error: BaseException) -> str:
    """Return the first line of the reader's own error, which datasets raises another one from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
