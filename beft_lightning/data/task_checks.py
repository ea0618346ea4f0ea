"""Checks of tasks of bare texts, and of the cells of their rows."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from beft_lightning.data.sources import Row, is_empty
from beft_lightning.errors import DataError

#: Kind of a task of bare texts -> the numbers of label names, and of text columns, that it may have.
COUNTS: Mapping[str, tuple[range, range]] = {
    "classification": (range(2, sys.maxsize), range(1, 3)),
    "regression": (range(1), range(1, 3)),
    "multi_label": (range(2, sys.maxsize), range(1, 3)),
    "token_classification": (range(2, sys.maxsize), range(1, 2)),
    "multiple_choice": (range(2, sys.maxsize), range(1, sys.maxsize)),
}


def check_counts(task: str, kind: str, labels: int | None, texts: int) -> None:
    """Check the numbers of a task's label names and text columns.

    Args:
        task: Name of the task, for the error.
        kind: Its kind.
        labels: Its number of label names; None if the rows have names of their own.
        texts: Its number of text columns.

    Raises:
        DataError: If the kind does not go with them.
    """
    allowed_labels, allowed_texts = COUNTS[kind]
    if labels is not None and labels not in allowed_labels:
        raise DataError(f"task {task!r}: {kind} has {_amount(allowed_labels)} labels, and not {labels}.")
    if texts not in allowed_texts:
        raise DataError(f"task {task!r}: {kind} has {_amount(allowed_texts)} columns of text, and not {texts}.")


def check_filled(row: Row, columns: Iterable[str], where: str) -> None:
    """Check that those of the columns that a row has are not empty.

    Args:
        row: A row.
        columns: Names of columns.
        where: The place of the row.

    Raises:
        DataError: If one is empty.
    """
    for name in columns:
        if name in row and is_empty(row[name]):
            raise DataError(f"{where}: column {name!r} is empty.")


def check_texts(row: Row, columns: Iterable[str], lists: Sequence[str] = ()) -> None:
    """Check that columns hold text, or lists of texts that are not empty.

    Args:
        row: A row that has the columns.
        columns: Their names.
        lists: The names of those that hold lists.

    Raises:
        DataError: If one does not; the place of the row is not in the message.
    """
    for name in columns:
        if name not in lists:
            if not isinstance(row[name], str):
                raise DataError(f"column {name!r} is no text but {row[name]!r}")
            continue
        if not isinstance(row[name], list | tuple) or not row[name]:
            raise DataError(f"column {name!r} is no list of texts but {row[name]!r}")
        if wrong := [value for value in row[name] if not isinstance(value, str) or not value.strip()]:
            raise DataError(f"column {name!r} lists {wrong[0]!r}, which is no text or an empty one")


def options_of(row: Row, columns: Sequence[str]) -> list[str]:
    """Return the options of a row, without white space around them.

    Args:
        row: The row.
        columns: Columns of the options, or the one column that lists them.

    Raises:
        DataError: If there are fewer than two, one is empty or no text, or two are the same.
    """
    values = row[columns[0]] if len(columns) == 1 else [row[name] for name in columns]
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise DataError(f"column {columns[0]!r} holds {values!r}, and no list of two or more options")
    for number, text in enumerate(values):
        name = repr(columns[number]) if len(columns) > 1 else f"{number} of column {columns[0]!r}"
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"option {name} is empty or no text: {text!r}")
    texts = [text.strip() for text in values]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise DataError(f"the option {twice[0]!r} occurs twice")
    return texts


def _amount(allowed: range) -> str:
    """Return a range of numbers in words; one that ends at ``sys.maxsize`` has no end."""
    if len(allowed) == 1:
        return str(allowed[0])
    return f"{allowed[0]} or more" if allowed.stop == sys.maxsize else f"{allowed[0]} or {allowed[-1]}"
