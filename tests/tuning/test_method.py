"""The interface of a method of training: a method of one's own needs nothing else."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import nn

from beft_lightning import LanguageTaskModule
from beft_lightning.bias import freeze_except
from beft_lightning.checkpoint import MODEL_KEY
from beft_lightning.data import GLUE_TASKS
from beft_lightning.errors import BeftError
from beft_lightning.tuning import TuningMethod, set_up_tuning
from beft_lightning.tuning.terms import HeadTuning
from tests.tiny import LAYERS, make_model


@dataclass(frozen=True)
class LastLayersTuning(TuningMethod):
    """The value biases of the last layers.

    Args:
        layers: Number of layers.
        scale: Not used; a real number.
    """

    name: ClassVar[str] = "last_layers"
    layers: int = 1
    scale: float = 1.0

    def apply(self, model: nn.Module) -> None:
        """Freeze all but the biases."""
        freeze_except(model, [f"value.{layer}" for layer in range(LAYERS - self.layers, LAYERS)])


def test_a_method_of_ones_own_trains_a_module_and_stands_in_its_checkpoint(backbone: str) -> None:
    module = LanguageTaskModule(backbone, GLUE_TASKS["sst2"])
    module.method = LastLayersTuning(layers=2)
    module.configure_model()
    trained = [name for name, p in module.named_parameters() if p.requires_grad and "value" in name]
    assert len(trained) == 2
    content: dict[str, dict[str, object]] = {}
    module.on_save_checkpoint(content)
    assert (content[MODEL_KEY]["tune"], content[MODEL_KEY]["tune_options"]) == ("last_layers", {"layers": 2})
    assert (module.tune, module.tune_options) == ("last_layers", {"layers": 2})


def test_a_whole_number_is_a_real_one_and_not_the_other_way_round() -> None:
    assert LastLayersTuning.from_options({"scale": 2}).scale == 2
    with pytest.raises(BeftError, match=r"tune_options of 'last_layers': layers must be int, not 2.0"):
        LastLayersTuning.from_options({"layers": 2.0})


def test_a_model_without_a_head_needs_something_to_train() -> None:
    with pytest.raises(BeftError, match="tune 'head' leaves nothing to train"):
        set_up_tuning(make_model("opt", causal=True), HeadTuning())
