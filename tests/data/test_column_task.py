"""Tasks of one column: what is read of a row, and how examples are numbered."""

from dataclasses import dataclass
from typing import Any

import pytest

from beft_lightning.data.column_task import ColumnExample, ColumnTask
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class Cell(ColumnExample):
    value: Any


@dataclass(frozen=True, kw_only=True)
class CellTask(ColumnTask):
    """Learns a cell as it is, and predicts it in capitals."""

    kinds = ("text",)
    kind: str = "text"
    metrics: tuple[str, ...] = ("perplexity",)

    def to_learn(self, value: Any, where: str) -> Cell:
        return Cell(value)

    def to_predict(self, value: Any, where: str) -> Cell:
        return Cell(value.upper())


TASK = CellTask(name="books", column="page")
ROW = {"page": "a", "author": "x", "idx": "p7"}


def test_an_example_knows_its_place_and_its_id_in_the_file() -> None:
    assert TASK.parse_row(ROW, "b.txt row 1") == [Cell("a", file_id="p7", where="b.txt row 1")]
    assert TASK.parse_row({"page": "a"}, "row 1") == [Cell("a", where="row 1")]
    assert TASK.input_columns == ("page",)


def test_an_input_is_made_without_looking_at_an_answer_and_keeps_its_row() -> None:
    assert TASK.parse_input(ROW, "row 1") == [(ROW, Cell("A", file_id="p7", where="row 1"))]


def test_examples_without_an_id_are_numbered_by_their_place() -> None:
    numbered = TASK.numbered([Cell("a"), Cell("b", id=7), Cell("c")])
    assert [example.id for example in numbered] == [0, 7, 2]
    assert TASK.file_ids([Cell("a", file_id="x"), Cell("b")]) == ["x", None]


@pytest.mark.parametrize("parse", [TASK.parse_row, TASK.parse_input])
def test_a_row_without_the_column(parse: Any) -> None:
    with pytest.raises(DataError, match="row 1: no column 'page'; there are: leaf, author"):
        parse({"leaf": "a", "author": "x"}, "row 1")


def test_the_record_holds_the_column() -> None:
    record = TASK.to_dict()
    assert (record["name"], record["kind"], record["column"]) == ("books", "text", "page")


@pytest.mark.parametrize("asked", [(1, False), (0, True)])
def test_baselines_belong_to_prompts(asked: tuple[int, bool]) -> None:
    TASK.with_baselines(0, False)
    with pytest.raises(DataError, match="demonstrations and calibrate belong to prompts, and books has none"):
        TASK.with_baselines(*asked)
