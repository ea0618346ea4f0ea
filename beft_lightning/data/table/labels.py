"""Labels of a table: their types and names, found from the values."""

from collections.abc import Callable, Sequence
from reprlib import repr as shown
from typing import Any

from datasets import ClassLabel, Dataset

from beft_lightning.data.labels import score
from beft_lightning.data.sources import is_empty
from beft_lightning.errors import DataError

#: Types of labels -> how an error names them.
_TYPES = {bool: "truth values", int: "numbers", float: "numbers", str: "texts"}
#: Number of rows that tell whether a column holds lists.
_LOOKED_AT = 100


def raw_labels(table: Dataset, column: str) -> list[Any]:
    """Return the labels, or lists of labels, of a column, those of a ``ClassLabel`` by their names; unnamed, None."""
    names = class_names(table, column)
    values = list(table[column])
    return [_named(value, names) for value in values] if names else values


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(entry, names) for entry in value]
    return names[value] if value is not None and value >= 0 else None


def class_names(table: Dataset, column: str) -> tuple[str, ...]:
    """Return the names that the table declares for a column, or for the lists of a column; empty if it has none."""
    feature = table.features[column]
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


def has_lists(table: Dataset, column: str) -> bool:
    """Return whether a column holds lists."""
    return any(isinstance(value, list) for value in table[:_LOOKED_AT][column])


def label_name(value: Any) -> str:
    """Return the name of a label.

    >>> label_name("pos"), label_name(True), label_name(2), label_name(2.0)
    ('pos', 'true', '2', '2')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def are_scores(values: Sequence[Any]) -> bool:
    """Return whether labels are numbers, as texts or not, and any of them has a fraction.

    >>> are_scores(["1", "2.5"]), are_scores(["1.0", "2"]), are_scores(["1", "2.5", "many"])
    (True, False, False)
    """
    fraction = False
    for value in values:
        number = _number(value)
        if number is None:
            return False
        fraction = fraction or not number.is_integer()
    return fraction


def infer_names(values: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the labels that occur, sorted; numbers, as texts or not, by their size."""
    names = sorted(set(map(label_name, values)))
    numbers = {name: _number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        names.sort(key=lambda name: numbers[name] or 0.0)
    return tuple(names)


def _number(value: Any) -> float | None:
    """Return a label as a number; None if it is none."""
    try:
        return None if isinstance(value, bool) else score(value)
    except DataError:
        return None


def check_types(values: Sequence[Any], column: str, where: Callable[[int], str]) -> None:
    """Check that labels are texts, numbers or truth values, all of one type, and that none is missing.

    Args:
        values: The labels in the order of the rows.
        column: Name of the column, for the error.
        where: Returns the place of a row, given its index.

    Raises:
        DataError: If a label is missing, of another type, or of another type than the first one.
    """
    for index, value in enumerate(values):
        if is_empty(value):
            raise DataError(f"{where(index)}: column {column!r} is empty. Fill it, or remove the row.")
        if type(value) not in _TYPES:
            raise DataError(f"{where(index)}: label {shown(value)} is no text, number or truth value.")
        first, here = _TYPES[type(values[0])], _TYPES[type(value)]
        if here != first:
            raise DataError(
                f"{where(index)}: label {value!r} is among the {here}, but {values[0]!r} of the first row among the "
                f"{first}. Write all of column {column!r} alike."
            )


def check_names(names: Sequence[str], values: Sequence[Any], column: str, source: str) -> None:
    """Check that labels can be learnt.

    Args:
        names: The label names.
        values: The labels of the training rows.
        column: Name of the column, for the error.
        source: Name of the table, for the error.

    Raises:
        DataError: If all rows have one label, or there are hardly any rows of each.
    """
    occurring = len(set(map(label_name, values)))
    if occurring < 2:
        raise DataError(
            f"{source}: every row has the label {label_name(values[0])!r} in column {column!r}: there is nothing to "
            "tell apart. Give rows of at least two labels, or another column."
        )
    if occurring > 2 and 2 * occurring > len(values):
        raise DataError(
            f"{source}: column {column!r} has {occurring} different values in {len(values)} rows, fewer than two rows "
            "for each. Give the column of the labels, or for numbers --data.kind regression."
        )
    if len(set(names)) < len(names):
        raise DataError(f"{source}: column {column!r} declares a label name twice: {', '.join(names)}.")


def known_name(value: Any, names: Sequence[str], train: str, where: str) -> str:
    """Return the name of a label that is among those of the training rows.

    Args:
        value: The label.
        names: The label names of the training rows.
        train: Name of the table of the training rows, for the error.
        where: Place of the label's row.

    Raises:
        DataError: If it is not among them.
    """
    name = label_name(value)
    if name not in names:
        raise DataError(f"{where}: label {name!r} is not among those of {train}: {', '.join(names)}.")
    return name


def describe_names(names: Sequence[str]) -> str:
    """Return label names with their ids.

    >>> describe_names(["no", "yes"])
    'labels 0 = no, 1 = yes'
    """
    return f"labels {', '.join(f'{index} = {name}' for index, name in enumerate(names))}"
