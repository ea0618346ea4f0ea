"""Free text as a task."""

from dataclasses import replace

import pytest

from beft_lightning.data import GLUE_TASKS
from beft_lightning.data.free_text_task import FreeText, FreeTextTask, with_packing
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


def test_texts_are_packed_unless_the_user_says_otherwise() -> None:
    assert [with_packing(TASK, asked) for asked in (None, True, False)] == [
        replace(TASK, packing=packing) for packing in (True, True, False)
    ]
    assert with_packing(GLUE_TASKS["sst2"], None) is GLUE_TASKS["sst2"]
    with pytest.raises(DataError, match="--data.packing belongs to free text .* sst2 is of the kind classification"):
        with_packing(GLUE_TASKS["sst2"], False)
