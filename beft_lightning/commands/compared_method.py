"""A method of training as a comparison uses it."""

import copy
from dataclasses import dataclass, field
from typing import Any

from beft_lightning.bias.heads import head_parameters
from beft_lightning.errors import BeftError
from beft_lightning.scoring.reference_adam import check_learning_rate
from beft_lightning.tasks.module import LanguageTaskModule
from beft_lightning.tuning import TuningMethod, set_up_tuning, tuning_method

#: The value of ``tune`` that trains nothing.
ZERO_SHOT = "zero_shot"


@dataclass(frozen=True)
class ComparedMethod:
    """A value of ``tune``, or ``zero_shot``, with its settings.

    Args:
        tune: What is trained.
        learning_rate: Learning rate of the default optimizer; ``None`` if the module has another optimizer.
        options: The ``tune_options`` asked for.
    """

    tune: str
    learning_rate: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """True unless the model is evaluated as it is."""
        return self.tune != ZERO_SHOT

    @property
    def own_learning_rate(self) -> float | None:
        """The learning rate of the method, where the one for biases does not suit; else ``None``."""
        method = self._method()
        return method.learning_rate if method is not None else None

    def check(self) -> None:
        """Check what needs no model.

        Raises:
            BeftError: If the method cannot be compared, or does not take an option.
        """
        self._method()
        if self.learning_rate is not None:
            check_learning_rate(self.learning_rate, f"the learning rate of {self.tune}")

    def check_model(self, module: LanguageTaskModule) -> None:
        """Check that the method can train a model.

        Args:
            module: The module with its model.

        Raises:
            BeftError: If it cannot.
        """
        assert module.model is not None
        if method := self._method():
            method.check(module.model)

    def copy_of(self, pretrained: LanguageTaskModule, seed: int) -> LanguageTaskModule:
        """Copy a module, and make trainable in the copy what this method trains.

        The copy shares the pretrained matrices if the method leaves them as they are.

        Args:
            pretrained: The module with its pretrained model; it is not changed.
            seed: Seed of the run. Methods that draw what they train draw it with this seed, unless their options have
                one: the spread over seeds includes that of the draw.
        """
        assert pretrained.model is not None
        method = self._method(seed)
        shared: dict[int, Any] = {}
        if method is None or not method.changes_matrices:
            head = set(head_parameters(pretrained.model))
            parameters = pretrained.model.named_parameters()
            shared = {id(value): value for name, value in parameters if value.dim() > 1 and name not in head}
        module = copy.deepcopy(pretrained, shared)
        module.method = method
        if self.learning_rate is not None:
            module.learning_rate = self.learning_rate
        if method is not None:
            assert module.model is not None
            set_up_tuning(module.model, method)
        return module

    def _method(self, seed: int | None = None) -> TuningMethod | None:
        """Return the method, ``None`` for zero-shot.

        Args:
            seed: Seed of what is drawn at random, unless the options have one.
        """
        if not self.trains:
            return None
        method = tuning_method(self.tune, self.options)
        if method is None:
            raise BeftError("compare trains each method that it is given: name the terms instead of 'auto'.")
        drawn = seed is not None and method.draws_at_random
        return tuning_method(self.tune, {"seed": seed, **self.options}) if drawn else method
