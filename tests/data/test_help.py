"""The options of the DataModules in the command line's help."""

import inspect
from typing import Any

import pytest

from beft_lightning.data import LanguageDataModule, Table
from beft_lightning.data.help import DATA, describe, option_groups

#: Arguments that are no options of the data on the command line.
LINKED = {"task", "tokenizer", "gguf_file", "random_init", "kwargs"}


def test_the_help_of_fit_lists_every_option_of_every_datamodule(help_of_fit: str) -> None:
    for title, description in option_groups():
        assert f"{title}: {' '.join(description.split())}" in help_of_fit
    for data in (*DATA, LanguageDataModule):
        for name in inspect.signature(data).parameters.keys() - LINKED:
            assert f" --data.{name}: " in help_of_fit, (data, name)
    assert "--data Glue or --data SuperGlue or --data Squad or --data Drop" in help_of_fit
    assert "Data of --data Squad or --data Drop: " in help_of_fit


def test_an_option_has_its_description_and_its_default() -> None:
    assert (
        "--data.label: Column of the label; for several labels, columns of 0 and 1, too. (default: 'label')"
        in describe(Table)
    )


def test_an_option_without_a_description_is_found() -> None:
    class Undocumented(LanguageDataModule):
        """No word on the option."""

        def __init__(self, depth: int = 1, **kwargs: Any) -> None: ...

        def read(self, split: str) -> list[Any]:
            return []

    with pytest.raises(ValueError, match="docstring of Undocumented does not describe the option 'depth'"):
        describe(Undocumented)
