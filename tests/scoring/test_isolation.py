"""What is done in isolation is undone, also when it fails. (A whole scoring pass is tested in test_scoring.py.)"""

import warnings
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer

from beft_lightning.scoring.isolation import eval_mode, leave_no_trace
from tests.tiny import ForeignModule


def test_a_failure_inside_is_undone_too(make_trainer: Callable[..., Trainer]) -> None:
    module = ForeignModule()
    weight = module.extra.get_parameter("weight")
    trainer = make_trainer()
    module.trainer = trainer
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def fail_inside() -> None:
        with leave_no_trace(trainer, module, [weight]), warnings.catch_warnings(record=True) as caught:
            assert [p for p in module.parameters() if p.requires_grad] == [weight]
            weight.data.add_(1.0)
            module.running.add_(1)
            module.log("ignored", 1.0)
            module.log_dict({"ignored": 1.0})
            assert caught == []
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_inside()
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not trainer.barebones


def test_evaluation_mode_gives_each_module_its_own_mode_back() -> None:
    module = ForeignModule()
    module.extra.eval()
    with eval_mode(module):
        assert not any(child.training for child in module.modules())
    assert [name for name, child in module.named_modules() if not child.training] == ["extra"]
