"""The options of the methods as text for the command line's help."""

from collections.abc import Iterator
from dataclasses import Field
from typing import Any

from docstring_parser import parse

from beft_lightning.tuning.method import TuningMethod, default_of, type_name
from beft_lightning.tuning.registry import METHODS


def option_groups() -> Iterator[tuple[str, str]]:
    """Yield a title and a description for each method of training."""
    for name, method in METHODS.items():
        yield f"Method of training '{name}' (--model.tune {name})", describe(method)


def describe(method: type[TuningMethod]) -> str:
    """Describe a method and its options, from its docstring and its fields.

    Raises:
        ValueError: If the docstring leaves out a field.
    """
    docstring = parse(method.__doc__ or "")
    described = {parameter.arg_name: parameter.description or "" for parameter in docstring.params}
    if missing := [field.name for field in method.option_fields() if field.name not in described]:
        raise ValueError(f"the docstring of {method.__name__} does not describe the option {missing[0]!r}.")
    options = [_describe_option(field, described[field.name]) for field in method.option_fields()]
    text = " ".join(filter(None, [docstring.short_description, docstring.long_description]))
    return " ".join([text, "tune_options:" if options else "It has no tune_options.", *options])


def _describe_option(field: Field[Any], description: str) -> str:
    return f"{field.name}: {' '.join(description.split())} (type: {type_name(field)}, default: {default_of(field)!r})"
