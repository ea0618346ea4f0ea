"""The loss of a user's training step outside the fit loop."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.errors import ScoringError
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


class Broken(ForeignModule):
    """A training step that goes wrong in a chosen way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return {
            "nan": loss * float("nan"),
            "detached": loss.detach().requires_grad_(),
            "detached from all": loss.detach(),
            "none": None,
            "text": "0.7",
            "nan gradient": loss + (loss * 0).sqrt(),
            "no gradient": loss * 0,
            "dict": {"loss": loss},
        }[self.how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "loss of scoring batch 1 is nan"),
        ("detached", "no gradient reaches the candidate biases"),
        ("detached from all", "no gradient reaches the candidate biases"),
        ("none", "no training batch gave a loss"),
        ("text", "returned str instead of a loss tensor"),
        ("nan gradient", "scores are not finite after batch 1"),
        ("no gradient", "every score is zero"),
    ],
)
def test_an_unusable_loss_is_an_error_and_leaves_nothing_behind(
    how: str, message: str, make_trainer: MakeTrainer, tmp_path: Any
) -> None:
    module = Broken(how)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ScoringError, match=message):
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(module, token_batches())
    torch.testing.assert_close(dict(module.state_dict()), dict(before), rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_in_a_dictionary_is_found(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback()
    make_trainer(callbacks=[callback], max_epochs=0).fit(Broken("dict"), token_batches())
    assert callback.scores is not None


def test_an_error_of_the_training_step_says_where_it_happened(make_trainer: MakeTrainer) -> None:
    class NeedsHook(ForeignModule):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * float(self.made_in_on_fit_start)  # type: ignore[arg-type]

    with pytest.raises(AttributeError) as caught:
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(NeedsHook(), token_batches())
    assert "hooks such as on_fit_start" in caught.value.__notes__[0]
