"""The options of the DataModules as text for the command line's help."""

import inspect
from collections.abc import Iterator, Sequence

from docstring_parser import parse

from beft_lightning.data import (
    AudioTable,
    Drop,
    Glue,
    ImageTable,
    LanguageDataModule,
    MovieReviews,
    Squad,
    SuperGlue,
    Table,
)
from beft_lightning.data.media.datamodule import MediaTable
from beft_lightning.data.table.file_data import FileData

#: The DataModules that a user names.
DATA: Sequence[type[LanguageDataModule]] = (Table, ImageTable, AudioTable, Glue, SuperGlue, Squad, Drop, MovieReviews)
#: Arguments that the command line takes from the model.
_LINKED = ("self", "tokenizer", "gguf_file", "random_init", "kwargs")


def option_groups() -> Iterator[tuple[str, str]]:
    """Yield a title and a description for DataModules with the same options, and for the options that all share."""
    owners: dict[type, list[str]] = {}
    for data in DATA:
        for owner in _owners(data):
            owners.setdefault(owner, []).append(data.__name__)
    for owner, names in owners.items():
        yield f"Data of {' or '.join(f'--data {name}' for name in names)}", describe(owner)
    yield "Data of all kinds, after --data", describe(LanguageDataModule, "task")


def _owners(data: type) -> list[type]:
    """Return the classes that have the options of a DataModule, without those whose options it names itself."""
    bases = data.__mro__[: data.__mro__.index(LanguageDataModule)]
    return [base for base in bases if "__init__" in vars(base) and base not in (FileData, MediaTable)]


def describe(data: type, *given: str) -> str:
    """Describe a DataModule and its own options, from its docstring and its signature.

    Args:
        data: The class that has the options.
        given: Arguments that are no options.

    Raises:
        ValueError: If the docstring leaves out an argument.
    """
    docstring = parse(data.__doc__ or "")
    described = {parameter.arg_name: parameter.description or "" for parameter in docstring.params}
    arguments = inspect.signature(vars(data)["__init__"]).parameters
    options = [argument for name, argument in arguments.items() if name not in (*_LINKED, *given)]
    if missing := [option.name for option in options if option.name not in described]:
        raise ValueError(f"the docstring of {data.__name__} does not describe the option {missing[0]!r}.")
    texts = [
        f"--data.{option.name}: {' '.join(described[option.name].split())}{_default(option)}" for option in options
    ]
    return " ".join([docstring.short_description or "", *texts])


def _default(option: inspect.Parameter) -> str:
    return f" (default: {option.default!r})" if option.default not in (None, option.empty) else ""
