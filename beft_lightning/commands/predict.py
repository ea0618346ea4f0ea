"""The command ``predict`` for new inputs: a file in, predictions out."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from beft_lightning.data import Drop, Glue, Squad, SuperGlue
from beft_lightning.data.benchmarks.submissions import file_name, find_submission, write_submission
from beft_lightning.data.media.files import SUFFIXES, media_files
from beft_lightning.data.media.task import MediaTask
from beft_lightning.data.sources import Row, original_rows
from beft_lightning.data.table.files import FORMATS, SEPARATORS, read_cells, read_file
from beft_lightning.data.table.kinds.kind import place
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import BeftError, DataError
from beft_lightning.files import check_output_folder, write_text_atomically
from beft_lightning.loading import load
from beft_lightning.predictor import Input, check_batch_size
from beft_lightning.resume import NAMES, find_checkpoint

#: The input that is read from the standard input.
STDIN = "-"
#: Hub id of a benchmark -> suffix of its original files, which have layouts of their own.
_ORIGINAL: Mapping[str, str] = {
    task.hub[0]: benchmark.suffix
    for benchmark in (Glue, SuperGlue, Squad, Drop)
    for task in (*benchmark.tasks.values(), *benchmark.prompt_tasks.values())
}
#: Hub id and configuration of a benchmark's task -> column names of its original files that have no header line.
_HEADERS = {task.hub: task.header for task in Glue.tasks.values() if task.header}


def predict(
    checkpoint: str,
    source: str,
    out: str,
    *,
    submission: str | None = None,
    batch_size: int = 64,
    backbone: str | None = None,
    device: str | None = None,
) -> Path:
    """Predict the rows of a file, and write them with their predictions, one JSON object a line.

    Args:
        checkpoint: A checkpoint or an exported folder, or one of the names of :mod:`~beft_lightning.resume`, which
            stand for checkpoints below the working directory.
        source: A table, an original file of the benchmark that the model was trained on, a ``.txt`` file with a text
            in each line, or ``-`` for such lines from the standard input. For images and sounds, a folder of files,
            or a table or ``.txt`` file of paths, which start from its own folder.
        out: The ``.jsonl`` file to write.
        submission: Folder for the official file of predictions of a task of GLUE or SuperGLUE, or the file's name.
        batch_size: Most rows in a batch.
        backbone: Location of the base now, if it is not where the fit found it.
        device: Where to compute; by default on an accelerator if there is one.

    Returns:
        The file written.

    Raises:
        BeftError: If an option, the checkpoint or a row is not as it has to be.
    """
    path = Path(out)
    if path.suffix != ".jsonl" or path.is_dir():
        raise BeftError(f"--out {out}: give the name of a .jsonl file.")
    check_output_folder(path.parent)
    if source != STDIN and path.resolve() == Path(source).resolve():
        raise BeftError(f"--out {out}: is the input, which it would replace. Give another name.")
    check_batch_size(batch_size)
    suffix = Path(source).suffix.lower()
    if source != STDIN and not Path(source).is_dir() and suffix not in (".txt", *FORMATS):
        raise DataError(f"--input {source}: unknown type {suffix!r}; choose one of: .txt, {', '.join(FORMATS)}.")
    if checkpoint in NAMES:
        checkpoint = str(find_checkpoint(checkpoint, Path.cwd()))
    predictor = load(checkpoint, backbone=backbone, device=device)
    if isinstance(predictor.task, MediaTask) and source != STDIN:
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        predictor.task = replace(predictor.task, folder=str(folder))
    official = None if submission is None else _official_path(submission, predictor.task, source)
    if official is not None and official.resolve() in (path.resolve(), Path(source).resolve()):
        raise BeftError(f"--submission {submission}: {official} is the input or --out, which it would replace.")
    predicted = predictor.predict_located(read_inputs(source, predictor.task), batch_size)
    write_text_atomically(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in predicted))
    rank_zero_info(f"Wrote {len(predicted):,} predictions to {path}")
    if official is not None:
        _submit(official, predictor.task, predicted, source)
    return path


def _official_path(submission: str, task: TaskRecord, source: str) -> Path:
    """Return where the official file of predictions is to be written, after a check that it can be."""
    official = find_submission(task)
    path = Path(submission)
    if path.suffix not in (".tsv", ".jsonl"):
        path = path / file_name(official, source)
    if path.is_dir():
        raise BeftError(f"--submission {submission}: {path} is a folder: give a file of another name.")
    check_output_folder(path.parent)
    return path


def _submit(path: Path, task: TaskRecord, predicted: Sequence[Row], source: str) -> None:
    """Write the official file of predictions."""
    official = find_submission(task)
    try:
        content = write_submission(official, predicted, task.labels)
    except DataError as error:
        raise DataError(f"{source}: no {path} is written: {error}") from error
    write_text_atomically(path, content)
    rank_zero_info(f"Wrote the submission {path}")
    size = official.size.get(path.name)
    if size not in (None, len(predicted)):
        rank_zero_warn(
            f"{path.name} has {len(predicted):,} rows, and the official test set {size:,}: the server will refuse it."
        )


def read_inputs(source: str, task: TaskRecord) -> list[tuple[str, Input]]:
    """Read the rows of a file, or the lines of a text file or of the standard input, each behind its place.

    Args:
        source: The file, or ``-``.
        task: The task that the model was trained on. The original files of its benchmark have a layout of their own.

    Raises:
        DataError: If the content is not of the file's type.
    """
    if source == STDIN:
        return _lines(io.TextIOWrapper(io.BytesIO(sys.stdin.buffer.read()), encoding="utf-8-sig"), "standard input")
    path = Path(source)
    if path.is_dir():
        return _folder(path, task)
    if path.suffix.lower() == ".txt":
        with path.open(encoding="utf-8-sig") as file:
            return _lines(file, source)
    suffix = path.suffix.lower()
    if suffix == _ORIGINAL.get(task.hub[0]):
        return [*original_rows(path, _header(path, task))]
    # Not through datasets, which gives all values of a column one type: a row keeps its cells as they are.
    if suffix == ".jsonl":
        return [*original_rows(path)]
    rows = read_cells(path) if suffix in SEPARATORS else read_file(path)
    return [(place(source, index), row) for index, row in enumerate(rows)]


def _folder(folder: Path, task: TaskRecord) -> list[tuple[str, Input]]:
    """Return the paths of the images or sounds in a folder, from the folder on."""
    if not isinstance(task, MediaTask):
        raise DataError(f"--input {folder}: is a folder. Give a file in it.")
    if not (paths := media_files(folder, task.media)):
        raise DataError(f"--input {folder}: holds no {task.media} files ({', '.join(SUFFIXES[task.media])}).")
    return [(str(path), {task.column: str(path.relative_to(folder))}) for path in paths]


def _header(path: Path, task: TaskRecord) -> Sequence[str]:
    """Return the column names of an original file that has no header line; none where its first line is one."""
    header = _HEADERS.get(task.hub, ())
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().removesuffix("\n").split("\t")
    return () if {*task.input_columns} <= {*first} else header


def _lines(file: TextIO, source: str) -> list[tuple[str, Input]]:
    """Return the lines of a text; unlike ``splitlines``, separators of other kinds than a new line stay in them."""
    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not readable as UTF-8 text ({error}).") from error
    lines = text.removesuffix("\n").split("\n") if text else []
    return [(f"{source}:{number}", line) for number, line in enumerate(lines, start=1)]
