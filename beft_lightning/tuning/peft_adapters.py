"""LoRA and its relatives on the query, key and value projections, through peft."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from beft_lightning.bias.lookup import pretrained_model
from beft_lightning.bias.owners import bias_owners
from beft_lightning.errors import BeftError
from beft_lightning.tuning.method import NO_OPTION, TuningMethod

if TYPE_CHECKING:
    from peft import PeftConfig

#: The terms whose layers are adapted.
PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True, kw_only=True)
class PeftTuning(TuningMethod):
    """An adapter of peft's on the query, key and value projections.

    Args:
        arguments: Further arguments of peft's configuration class; in ``tune_options`` they stand beside the fields.
    """

    #: Name of peft's configuration class.
    config_class: ClassVar[str]
    #: Arguments of the configuration that make it this method.
    fixed: ClassVar[Mapping[str, Any]] = {}
    arguments: dict[str, Any] = field(default_factory=dict, metadata=NO_OPTION)

    @property
    def export_obstacle(self) -> str:
        """The adapter, which stands beside the model's own parameters."""
        return f"an adapter of peft's ({self.name})"

    def configuration(self, model: nn.Module) -> "PeftConfig":
        """Return peft's configuration for a model.

        Raises:
            BeftError: If peft does not know an option.
        """
        import peft

        own = {option.name: getattr(self, option.name) for option in self.option_fields()}
        try:
            config: PeftConfig = getattr(peft, self.config_class)(
                **{"target_modules": projections(model), **self.fixed, **own, **self.arguments}
            )
        except TypeError as error:
            raise BeftError(
                f"tune_options of {self.name!r}: {error}; see the arguments of peft.{self.config_class}."
            ) from error
        return config

    def check(self, model: nn.Module) -> None:
        """Check that peft is installed and takes the options.

        Raises:
            BeftError: If not.
        """
        if find_spec("peft") is None:
            raise BeftError(f"tune {self.name!r} needs peft: pip install 'beft-lightning[peft]'.")
        self.configuration(model)

    def apply(self, model: nn.Module) -> None:
        """Put the adapters in place, and train them alone."""
        add_adapter(model, self.configuration(model))

    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, and those for peft's configuration."""
        return {**super().options(), **self.arguments}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Make the method from ``tune_options``; what is no field is an argument of peft's configuration."""
        own = {option.name for option in cls.option_fields()}
        method = super().from_options({name: value for name, value in options.items() if name in own})
        method.arguments.update({name: value for name, value in options.items() if name not in own})
        return method


@dataclass(frozen=True, kw_only=True)
class LoraTuning(PeftTuning):
    """LoRA (arXiv 2106.09685) on the query, key and value projections. The defaults are MeZO's (arXiv 2305.17333).

    Every other argument of ``peft.LoraConfig`` is an option too, for example ``lora_dropout``.

    Args:
        r: Rank of the update.
        lora_alpha: The update is scaled by ``lora_alpha / r``.
        arguments: Further arguments of ``peft.LoraConfig``.
    """

    name: ClassVar[str] = "lora"
    config_class: ClassVar[str] = "LoraConfig"
    r: int = 8
    lora_alpha: float = 16


@dataclass(frozen=True, kw_only=True)
class DoraTuning(LoraTuning):
    """DoRA (arXiv 2402.09353): LoRA for the direction of the weights, and a trained magnitude.

    Every other argument of ``peft.LoraConfig`` is an option too, for example ``lora_dropout``.

    Args:
        r: Rank of the update.
        lora_alpha: The update is scaled by ``lora_alpha / r``.
        arguments: Further arguments of ``peft.LoraConfig``.
    """

    name: ClassVar[str] = "dora"
    fixed: ClassVar[Mapping[str, Any]] = {"use_dora": True}


@dataclass(frozen=True, kw_only=True)
class VeraTuning(PeftTuning):
    """VeRA (arXiv 2310.11454): trained scales of frozen random matrices that all layers share.

    Every other argument of ``peft.VeraConfig`` is an option too, for example ``d_initial``.

    Args:
        r: Rank of the frozen matrices.
        arguments: Further arguments of ``peft.VeraConfig``.
    """

    name: ClassVar[str] = "vera"
    config_class: ClassVar[str] = "VeraConfig"
    r: int = 64


@dataclass(frozen=True, kw_only=True)
class Ia3Tuning(PeftTuning):
    """IA3 (arXiv 2205.05638): trained scales of activations.

    Every other argument of ``peft.IA3Config`` is an option too, for example ``target_modules``.

    Args:
        feedforward_modules: Names of those adapted modules whose input is scaled; of all others, it is the output.
        arguments: Further arguments of ``peft.IA3Config``.
    """

    name: ClassVar[str] = "ia3"
    config_class: ClassVar[str] = "IA3Config"
    feedforward_modules: list[str] | str = field(default_factory=list)


def projections(module: nn.Module) -> list[str]:
    """Names of the modules of :data:`PROJECTIONS` in the transformers model inside ``module``."""
    owners = bias_owners(module)
    adapted = {id(owner) for term in PROJECTIONS for owner in owners[term].values()}
    return [path for path, child in pretrained_model(module).named_modules() if id(child) in adapted]


def add_adapter(module: nn.Module, config: "PeftConfig") -> None:
    """Put adapters into the model and freeze everything else; the output does not change.

    Args:
        module: A model, or any module that contains one; changed in place.
        config: The kind of adapter, its options, and the modules to adapt.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftType

    model = pretrained_model(module)
    # The tuner replaces the modules. (`peft.inject_adapter_in_model` does the same, but not for VeRA.)
    PEFT_TYPE_TO_TUNER_MAPPING[PeftType(config.peft_type)](model, config, "default")
    # Adapters are created in the precision of what they adapt, and train in fp32.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
