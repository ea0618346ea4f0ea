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


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ({"text": "label"}, "label"),
        ({"text": "id"}, "id"),
        ({"text": "a,file_id"}, "file_id"),
        ({"prompt": "{label} is"}, "label"),
    ],
)
def test_an_input_with_a_name_that_examples_use(names: dict[str, str], taken: str) -> None:
    """The label would take the place of the text, or stand in the prompt."""
    with pytest.raises(DataError, match=f"column {taken!r} .* rename the column"):
        Columns.given(**{"text": "t", "label": "mood", **names}).inputs  # noqa: B018


def test_a_prompt_may_show_an_id() -> None:
    assert Columns.given("t", "mood", prompt="{id}: {t}").inputs == ("id", "t")


@pytest.mark.parametrize("field", ["{text: }", "{text:d}", "{text!r}", "{text!x}"])
def test_a_format_in_a_prompt(field: str) -> None:
    with pytest.raises(DataError, match="--data.prompt .*: a brace holds the name of a column alone, such as {text}"):
        _ = Columns.given("text", "y", prompt=f"{field} is").inputs
