"""The command ``predict`` for new texts: a file in, predictions out."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.data.table.files import FORMATS, read_file
from beft_lightning.errors import BeftError, DataError
from beft_lightning.files import check_output_folder, write_text_atomically
from beft_lightning.loading import load
from beft_lightning.predictor import Input
from beft_lightning.resume import NAMES, find_checkpoint

#: The input that is read from the standard input.
STDIN = "-"


def predict(
    checkpoint: str,
    source: str,
    out: str,
    *,
    batch_size: int = 64,
    backbone: str | None = None,
    device: str | None = None,
) -> Path:
    """Predict the rows of a file, and write them with their predictions, one JSON object a line.

    Args:
        checkpoint: The checkpoint, or one of the names of :mod:`~beft_lightning.resume` below the working directory.
        source: A table, a ``.txt`` file with a text in each line, or ``-`` for such lines from the standard input.
        out: The ``.jsonl`` file to write.
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
    rows = read_inputs(source)
    if checkpoint in NAMES:
        checkpoint = str(find_checkpoint(checkpoint, Path.cwd()))
    predictor = load(checkpoint, backbone=backbone, device=device)
    try:
        predicted = predictor.predict(rows, batch_size)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    write_text_atomically(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in predicted))
    rank_zero_info(f"Wrote {len(predicted):,} predictions to {path}")
    return path


def read_inputs(source: str) -> Sequence[Input]:
    """Read the rows of a table, or the lines of a text file or of the standard input.

    Raises:
        DataError: If the type is unknown, or the content is not of this type.
    """
    if source == STDIN:
        return _lines(sys.stdin.read())
    path = Path(source)
    if path.suffix.lower() == ".txt":
        try:
            return _lines(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not readable as UTF-8 text ({error}).") from error
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"--input {source}: unknown type {path.suffix!r}; choose one of: .txt, {', '.join(FORMATS)}.")
    rows: list[dict[str, Any]] = list(read_file(path))
    return rows


def _lines(text: str) -> list[str]:
    """Return the lines of a text; unlike ``splitlines``, separators of other kinds than a new line stay in them."""
    return text.removesuffix("\n").split("\n") if text else []
