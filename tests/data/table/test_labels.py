"""Labels found from the values of a column."""

from typing import Any

import pytest

from beft_lightning.data.table.labels import are_scores, check_names, check_types, infer_names, label_name
from beft_lightning.errors import DataError


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["pos", "neg", "pos"], "classification", ("neg", "pos")),
        ([10, 9, 2], "classification", ("2", "9", "10")),
        ([True, False], "classification", ("false", "true")),
        ([1.0, 2.0], "classification", ("1", "2")),
        ([1, 2.5], "regression", ("1", "2.5")),
        (["1.5", "2"], "regression", ("1.5", "2")),
        (["10", "9", "1"], "classification", ("1", "9", "10")),
        (["1", "01", "1.0"], "classification", ("01", "1", "1.0")),
        (["1.5", "3.x"], "classification", ("1.5", "3.x")),
        (["1.5", "nan"], "classification", ("1.5", "nan")),
        (["1.5", "1_0"], "classification", ("1.5", "1_0")),
    ],
)
def test_kind_and_names_of_labels(values: list[Any], kind: str, names: tuple[str, ...]) -> None:
    assert are_scores(values) == (kind == "regression")
    assert infer_names(values) == names
    assert {label_name(value) for value in values} == set(names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None], "row 1: column 'y' is empty"),
        (["a", "  "], "row 1: column 'y' is empty"),
        ([0.5, float("nan")], "row 1: column 'y' is empty"),
        ([1, "x"], "row 1: label 'x' is among the texts, but 1 of the first row among the numbers"),
        ([1, True], "row 1: label True is among the truth values"),
        (["a", ["b"]], r"row 1: label \['b'\] is no text, number or truth value"),
    ],
)
def test_labels_of_another_type(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_types(values, "y", lambda index: f"row {index}")


def test_whole_numbers_and_fractions_are_of_one_type() -> None:
    check_types([1, 2.5], "y", str)


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("a",), ["a", "a"], "t.csv: every row has the label 'a' in column 'y'"),
        (tuple("abc"), list("abc"), "t.csv: column 'y' has 3 different values in 3 rows"),
        (("a", "b", "a"), ["a", "b"], "declares a label name twice"),
    ],
)
def test_labels_that_cannot_be_learnt(names: tuple[str, ...], values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_names(names, values, "y", "t.csv")
