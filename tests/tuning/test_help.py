"""The options of the methods in the command line's help."""

from dataclasses import dataclass

import pytest

from beft_lightning.tuning import METHODS
from beft_lightning.tuning.help import describe
from beft_lightning.tuning.terms import HeadTuning


def test_the_help_of_fit_lists_every_method_with_its_options(help_of_fit: str) -> None:
    for name, method in METHODS.items():
        _, _, section = help_of_fit.partition(f"Method of training '{name}' (--model.tune {name}):")
        assert section.startswith(f" {describe(method)}"), name
    assert "budget: Number of entries; by default the number of values in the model's biases." in help_of_fit
    assert "(type: int | None, default: None)" in help_of_fit
    assert "rank: Rank of the frozen matrices. (type: int, default: 8)" in help_of_fit
    assert "for example ``lora_dropout``. tune_options: r: Rank of the update. (type: int, default: 8)" in help_of_fit


def test_an_option_without_a_description_is_found() -> None:
    @dataclass(frozen=True)
    class Undocumented(HeadTuning):
        """No word on the option."""

        depth: int = 1

    with pytest.raises(ValueError, match="docstring of Undocumented does not describe the option 'depth'"):
        describe(Undocumented)
