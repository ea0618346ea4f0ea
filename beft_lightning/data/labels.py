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
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"label {value!r} is not a number, as a score must be")
    return number


#: Kind of task -> how it reads a raw label, given the label names.
LABEL_READERS: Mapping[str, Callable[[object, Sequence[str]], int | float]] = {
    "classification": label_index,
    "regression": score,
    "multiple_choice": label_index,
}
