"""Kinds of task that a table may hold, and how the kind of a table is found."""

from collections.abc import Mapping

from datasets import Dataset

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.chat import Chat
from beft_lightning.data.table.kinds.classification import Classification
from beft_lightning.data.table.kinds.free_text import FreeTextKind
from beft_lightning.data.table.kinds.generation import GenerationKind
from beft_lightning.data.table.kinds.kind import TableKind, missing_columns
from beft_lightning.data.table.kinds.multi_label import MultiLabel
from beft_lightning.data.table.kinds.multiple_choice import MultipleChoice
from beft_lightning.data.table.kinds.regression import Regression
from beft_lightning.data.table.kinds.token_classification import TokenClassification
from beft_lightning.errors import DataError

#: Name of a kind, as in ``--data.kind`` -> its class.
KINDS: Mapping[str, type[TableKind]] = {
    kind.name: kind
    for kind in (
        Classification,
        Regression,
        MultiLabel,
        TokenClassification,
        MultipleChoice,
        GenerationKind,
        Chat,
        FreeTextKind,
    )
}


def find_kind(name: str | None, columns: Columns, table: Dataset, train: str) -> TableKind:
    """Return the kind of a table.

    Args:
        name: Name of the kind; if it is not given, the options and the labels of the training rows decide.
        columns: The options that name the table's columns.
        table: The training rows.
        train: Name of the table, for messages.

    Raises:
        DataError: If there is no such kind, it has no use for an option, a column is missing, or rows and options suit
            no kind, or several.
    """
    if name is not None and name not in KINDS:
        raise DataError(f"--data.kind {name}: no such kind; choose one of: {', '.join(KINDS)}.")
    if columns.kind is not None:
        if name not in (None, columns.kind):
            option = "--data.messages" if columns.kind == "chat" else "--data.answer"
            raise DataError(f"{option} belongs to the kind {columns.kind}, not to {name}: leave out one of the two.")
        name = columns.kind
    kinds = [KINDS[name](columns, train)] if name is not None else _fitting(columns, train)
    if name is not None and kinds[0].unused:
        raise DataError(
            f"--data.{kinds[0].unused[0]}: kind {name} has no use for it: leave it out, or give another kind."
        )
    present = [kind for kind in kinds if not missing_columns(kind, table)]
    if not present:
        check_columns(kinds[0], table, train)
    found = present if name is not None else [kind for kind in present if kind.matches(table)]
    if len(found) != 1:
        what = f"may be {' or '.join(kind.name for kind in found)}" if found else "are of no kind that can be told"
        raise DataError(f"{train}: the rows {what}: give --data.kind, one of: {', '.join(KINDS)}.")
    return found[0]


def check_columns(kind: TableKind, table: Dataset, source: str) -> None:
    """Check that a table has the columns that a kind reads.

    Raises:
        DataError: If one is missing.
    """
    if missing := missing_columns(kind, table):
        options = kind.options if kind.columns.prompt is None else kind.options.replace("--data.text", "--data.prompt")
        raise DataError(
            f"{source}: no column {', '.join(map(repr, missing))}; there are: {', '.join(table.column_names)}. Set "
            f"{options} to columns of the table."
        )


def _fitting(columns: Columns, train: str) -> list[TableKind]:
    """Return the kinds that the options allow."""
    fitting = [kind for known in KINDS.values() if (kind := known(columns, train)).fits()]
    if not fitting:
        raise DataError(
            f"{train}: no kind of task has all of these columns: give --data.kind, one of {', '.join(KINDS)}."
        )
    return fitting


__all__ = ["KINDS", "TableKind", "check_columns", "find_kind"]
