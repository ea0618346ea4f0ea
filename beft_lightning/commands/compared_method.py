"""A method of training as a comparison uses it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beft_lightning.bias.heads import head_parameters
from beft_lightning.errors import BeftError
from beft_lightning.tasks.module import LanguageTaskModule
from beft_lightning.tuning.methods import AUTO, CHANGES_MATRICES, RANDOM, check_options, check_ways

#: The method that trains nothing.
ZERO_SHOT = "zero_shot"
#: Learning rates of methods that the rate for biases does not suit; full fine-tuning's is the published one.
RATES: Mapping[str, float] = {"full": 1e-5}


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

    def check(self) -> None:
        """Check what needs no model.

        Raises:
            BeftError: If the method cannot be compared, or does not take an option.
        """
        if self.tune == AUTO:
            raise BeftError("compare trains each method that it is given: name the terms instead of 'auto'.")
        if self.trains:
            check_options(self.tune, self.options)

    def check_model(self, module: LanguageTaskModule) -> None:
        """Check that the method can train a model.

        Args:
            module: The module with its model.

        Raises:
            BeftError: If it cannot.
        """
        assert module.model is not None
        if self.trains:
            check_ways(module.model, [self.tune])

    def copy_of(self, pretrained: LanguageTaskModule, seed: int) -> LanguageTaskModule:
        """Copy a module, to train the copy with this method.

        The copy shares the pretrained matrices if the method leaves them as they are.

        Args:
            pretrained: The module with its pretrained model; it is not changed.
            seed: Seed of the run. Methods that draw what they train draw it with this seed, unless their options have
                one: the spread over seeds includes that of the draw.
        """
        assert pretrained.model is not None
        shared: dict[int, Any] = {}
        if self.tune not in CHANGES_MATRICES:
            head = set(head_parameters(pretrained.model))
            parameters = pretrained.model.named_parameters()
            shared = {id(value): value for name, value in parameters if value.dim() > 1 and name not in head}
        module = copy.deepcopy(pretrained, shared)
        module.tune = self.tune
        module.tune_options = {**({"seed": seed} if self.tune in RANDOM else {}), **self.options}
        if self.learning_rate is not None:
            module.learning_rate = self.learning_rate
        if self.trains:
            module.set_up_tuning()
        return module
