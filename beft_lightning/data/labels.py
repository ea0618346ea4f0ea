"""Raw labels of files as the numbers to train on."""

import math
from collections.abc import Callable, Mapping, Sequence

from beft_lightning.errors import DataError


def label_index(value: object, names: Sequence[str]) -> int:
    """Return the id of a label.

    Args:
        value: The label's name, id or truth value, as text or not, as the original file or the hub has it.
        names: Label names in the order of their ids.

    Raises:
        DataError: If there is no such label.
    """
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise DataError(f"label {text!r} is outside the set of labels: {', '.join(names)} (or 0 to {len(names) - 1})")


def score(value: object, names: Sequence[str] = ()) -> float:
    """Return a finite score.

    Args:
        value: A number, as text or not.
        names: Not used; scores have no names.

    Raises:
        DataError: If the value is no finite number.
    """
    try:
        number = float(str(value).replace("_", " "))  # Python's own way to write digits in groups is none
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"label {value!r} is not a number, as a score must be")
    return number


def label_indicators(value: object, names: Sequence[str]) -> list[int]:
    """Return 1 for each label that is among those given and 0 for the others.

    Args:
        value: A list of labels, each as :func:`label_index` takes it; it may be empty.
        names: Label names in the order of their ids.

    Raises:
        DataError: If the value is no list, or holds a label twice or one that does not exist.
    """
    indices = _label_indices(value, names)
    if len(set(indices)) < len(indices):
        raise DataError(f"a label occurs twice in {value!r}")
    return [int(index in indices) for index in range(len(names))]


def tag_indices(value: object, names: Sequence[str]) -> list[int]:
    """Return the ids of a list of tags; arguments and errors as in :func:`label_indicators`, but tags may repeat."""
    return _label_indices(value, names)


def _label_indices(value: object, names: Sequence[str]) -> list[int]:
    if not isinstance(value, list | tuple):
        raise DataError(f"label {value!r} is no list of labels")
    return [label_index(label, names) for label in value]


#: Kind of task -> how it reads a raw label, given the label names.
LABEL_READERS: Mapping[str, Callable[[object, Sequence[str]], int | float | list[int]]] = {
    "classification": label_index,
    "regression": score,
    "multi_label": label_indicators,
    "token_classification": tag_indices,
    "multiple_choice": label_index,
}
