"""The interface of a method of training, and how one is set up on a model."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin

from torch import nn

from beft_lightning.bias.heads import head_parameters
from beft_lightning.errors import BeftError

#: Metadata of a field that is set in Python alone and is not one of the ``tune_options``.
NO_OPTION = {"option": False}


@dataclass(frozen=True)
class TuningMethod(ABC):
    """A method of training. The fields of a subclass are its options, ``tune_options`` on the command line.

    A subclass is a frozen dataclass with a default for each field, and describes each field under ``Args:`` in its
    docstring. The help of the command line is generated from both.
    """

    #: The value of ``tune`` that chooses the method.
    name: ClassVar[str]
    #: The method changes or replaces matrices of the pretrained model.
    changes_matrices: ClassVar[bool] = False
    #: Learning rate to use where the rate for biases does not suit; None where it does.
    learning_rate: ClassVar[float | None] = None
    #: The trained values stand in the attention's cache, which activation checkpointing does not keep.
    needs_cache: ClassVar[bool] = False
    #: It needs to know where bias terms are, which a checkpoint may say.
    looks_for_terms: ClassVar[bool] = False

    @property
    def tune(self) -> str:
        """The value of ``tune`` that, with :meth:`options`, makes this method again."""
        return self.name

    @property
    def draws_at_random(self) -> bool:
        """True if the option ``seed`` decides what is trained.

        The seed is an option, not the seed of the run, so that a checkpoint finds its parameters again in a process
        with another seed.
        """
        return any(field.name == "seed" for field in self.option_fields())

    @property
    def export_obstacle(self) -> str | None:
        """The part of a checkpoint that no export can express; None if all can be exported."""
        return None

    def check(self, model: nn.Module) -> None:  # noqa: B027 - most methods train any model
        """Check that the model, and the installed packages, allow this method. The model is left as it is.

        Args:
            model: A model, or any module that contains one.

        Raises:
            BeftError: If they do not.
        """

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Make trainable what the method trains, and freeze the rest. The caller takes care of the task head.

        Args:
            model: A model, or any module that contains one; changed in place.

        Raises:
            BeftError: If an option does not fit the model.
        """

    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, as plain types: what :meth:`from_options` takes."""
        values = {field.name: (getattr(self, field.name), default_of(field)) for field in self.option_fields()}
        return {name: value for name, (value, default) in values.items() if value != default}

    @classmethod
    def option_fields(cls) -> list[Field[Any]]:
        """The fields that are ``tune_options``."""
        return [field for field in fields(cls) if field.metadata != NO_OPTION]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Make the method from ``tune_options``.

        Raises:
            BeftError: If there is no such option, or its value has another type.
        """
        known = {field.name: field for field in cls.option_fields()}
        check_option_names(cls.name, options, tuple(known))
        for name, value in options.items():
            if not _has_type(value, known[name].type):
                raise BeftError(
                    f"tune_options of {cls.name!r}: {name} must be {type_name(known[name])}, not {value!r}."
                )
        return cls(**options)


def check_option_names(tune: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Check that a method has the options that were given.

    Raises:
        BeftError: If one is unknown; the message lists those there are.
    """
    if unknown := [name for name in given if name not in known]:
        raise BeftError(
            f"tune {tune!r} takes no option {unknown[0]!r}; its tune_options are: {', '.join(known) or 'none'}."
        )


def default_of(field: Field[Any]) -> Any:
    """The default of a dataclass's field."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def type_name(field: Field[Any]) -> str:
    """The type of a dataclass's field for messages, such as ``int`` or ``list[str]``."""
    return field.type.__name__ if type(field.type) is type else str(field.type)


def _has_type(value: Any, expected: Any) -> bool:
    """Return True if a value that was read from JSON or YAML has the type of a field."""
    if isinstance(expected, UnionType):
        return any(_has_type(value, choice) for choice in get_args(expected))
    if get_origin(expected) is list:
        return isinstance(value, list) and all(_has_type(item, *get_args(expected)) for item in value)
    if expected in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float) if expected is float else isinstance(value, expected)


def set_up_tuning(model: nn.Module, method: TuningMethod) -> None:
    """Make trainable what a method trains and the task head, and freeze the rest.

    Args:
        model: The model with its head; changed in place.
        method: The method of training.

    Raises:
        BeftError: If the method cannot train this model, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    head = [parameters[name] for name in head_parameters(model)]
    method.check(model)
    method.apply(model)
    for parameter in head:
        parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BeftError(f"tune {method.tune!r} leaves nothing to train: this model has no head of its own.")
