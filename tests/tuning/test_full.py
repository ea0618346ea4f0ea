"""Full fine-tuning."""

import pytest

from beft_lightning.errors import BeftError
from beft_lightning.tuning import set_up_tuning
from beft_lightning.tuning.full import FullTuning
from tests.tiny import make_model


def test_full_is_every_parameter() -> None:
    model = make_model("bert").requires_grad_(False)
    set_up_tuning(model, FullTuning())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_full_needs_full_precision() -> None:
    with pytest.raises(BeftError, match="must be float32, not torch.bfloat16"):
        set_up_tuning(make_model("bert").bfloat16(), FullTuning())
