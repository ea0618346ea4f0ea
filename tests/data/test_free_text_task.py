"""Free text as a task."""

import pytest

from beft_lightning.data.free_text_task import FreeText, FreeTextTask
from beft_lightning.errors import DataError

TASK = FreeTextTask(name="books", column="page")


def test_texts_are_numbered() -> None:
    rows = [(f"b.txt row {i}", {"page": text, "author": "x"}) for i, text in enumerate(["a", "b"], start=1)]
    assert TASK.parse(rows, "b.txt") == [
        FreeText("a", id=0, where="b.txt row 1"),
        FreeText("b", id=1, where="b.txt row 2"),
    ]


def test_what_is_no_text() -> None:
    with pytest.raises(DataError, match="row 1: column 'page' is no text but 5"):
        TASK.parse([("row 1", {"page": 5})], "b.txt")
