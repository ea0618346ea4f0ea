"""Checks of tasks of bare texts, and of the cells of their rows."""

from typing import Any

import pytest

from beft_lightning.data.task_checks import check_counts, check_filled, check_texts
from beft_lightning.errors import DataError


@pytest.mark.parametrize(
    ("kind", "labels", "texts", "message"),
    [
        ("classification", 1, 1, "classification has 2 or more labels, and not 1"),
        ("classification", 2, 3, "classification has 1 or 2 columns of text, and not 3"),
        ("multi_label", 1, 1, "multi_label has 2 or more labels, and not 1"),
        ("regression", 2, 1, "regression has 0 labels, and not 2"),
        ("token_classification", 2, 2, "token_classification has 1 columns of text, and not 2"),
        ("multiple_choice", None, 0, "multiple_choice has 1 or more columns of text, and not 0"),
    ],
)
def test_numbers_that_the_kind_does_not_have(kind: str, labels: int | None, texts: int, message: str) -> None:
    with pytest.raises(DataError, match=f"task 'mine': {message}"):
        check_counts("mine", kind, labels, texts)


def test_a_cell_that_a_row_has_is_filled() -> None:
    check_filled({"a": "x"}, ("a", "b"), "f:1")
    with pytest.raises(DataError, match="f:1: column 'a' is empty"):
        check_filled({"a": " "}, ("a",), "f:1")


@pytest.mark.parametrize(
    ("value", "lists", "message"),
    [
        (3, (), "column 'a' is no text but 3"),
        ("x", ("a",), "column 'a' is no list of texts but 'x'"),
        ([], ("a",), r"column 'a' is no list of texts but \[\]"),
        (["x", 3], ("a",), "column 'a' lists 3, which is no text"),
    ],
)
def test_a_cell_that_is_no_text(value: Any, lists: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_texts({"a": value}, ("a",), lists)
