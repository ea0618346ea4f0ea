"""Options that name columns."""

import pytest

from beft_lightning.data.table.columns import Columns
from beft_lightning.errors import DataError


def test_names_have_commas_or_are_lists() -> None:
    for text in ("a, b", ["a", "b"]):
        assert Columns.given(text, "y").inputs == ("a", "b")
    assert Columns.given("a", "y,z", "c,d").options == ("c", "d")


def test_the_inputs_of_a_prompt_are_its_columns() -> None:
    columns = Columns.given("text", "y", prompt="{a}{{}}\\n{b} {a}")
    assert columns.inputs == ("a", "b")
    assert columns.prompt == "{a}{{}}\n{b} {a}"


@pytest.mark.parametrize("names", [{"text": "a,a"}, {"label": "y,y"}, {"options": ["c", "c"]}])
def test_a_column_twice(names: dict[str, str]) -> None:
    (option,) = names
    with pytest.raises(DataError, match=f"--data.{option} .*: a column is given twice"):
        Columns.given(**{"text": "t", "label": "l", **names})


@pytest.mark.parametrize("field", ["{text: }", "{text:d}", "{text!r}", "{text!x}"])
def test_a_format_in_a_prompt(field: str) -> None:
    with pytest.raises(DataError, match="--data.prompt .*: a brace holds the name of a column alone, such as {text}"):
        _ = Columns.given("text", "y", prompt=f"{field} is").inputs
