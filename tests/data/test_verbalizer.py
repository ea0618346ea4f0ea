"""Classification by words."""

import pytest

from beft_lightning.data import Verbalizer
from beft_lightning.errors import DataError

WORDS = ((" no", " yes"), ("false", "true"))


@pytest.mark.parametrize("prompt", ["{text} Good?", lambda row: f"{row['text']} Good?"])
def test_a_template_or_a_function_asks(prompt: object) -> None:
    (example,) = Verbalizer(prompt, *WORDS)({"text": "A {film}.", "label": True})  # type: ignore[arg-type]
    assert (example.prompt, example.options, example.labels) == ("A {film}. Good?", (" no", " yes"), (1,))


def test_group_and_source_are_of_the_columns_that_are_named() -> None:
    row = {"text": "a", "label": 0, "group": "3-1", "source": 3}
    (example,) = Verbalizer("{text}", *WORDS, group="group", source="source")(row)
    assert (example.group, example.source) == ("3-1", "3")
    (example,) = Verbalizer("{text}", *WORDS)(row)
    assert (example.group, example.source) == ("", "")


def test_a_label_outside_the_set_is_an_error() -> None:
    with pytest.raises(DataError, match="label 'perhaps' is outside the set of labels: false, true"):
        Verbalizer("{text}", *WORDS)({"text": "a", "label": "perhaps"})
