"""Every preprocessor has what the interface asks for."""

import inspect

import pytest

from beft_lightning.data.preprocessors import PREPROCESSORS, EncodingOptions, Preprocessor

METHODS = [name for name, value in vars(Preprocessor).items() if inspect.isfunction(value) and not name.startswith("_")]


def test_the_interface_is_not_empty() -> None:
    assert {"encode", "length", "positions", "collate_training", "collate_evaluation"} <= set(METHODS)


@pytest.mark.parametrize("kind", PREPROCESSORS)
@pytest.mark.parametrize("name", METHODS)
def test_a_preprocessor_has_every_method_with_its_arguments(kind: str, name: str) -> None:
    method, asked = getattr(PREPROCESSORS[kind], name), getattr(Preprocessor, name)
    assert list(inspect.signature(method).parameters) == list(inspect.signature(asked).parameters)


def test_each_batch_is_padded_to_its_own_longest_example_unless_asked() -> None:
    assert EncodingOptions(128) == EncodingOptions(128, padding="longest")
