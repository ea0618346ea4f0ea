"""The learning rate of a fit by a race."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.callbacks import rate_race
from beft_lightning.callbacks.rate_race import RateRace
from beft_lightning.checkpoint import MODEL_KEY
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from beft_lightning.scoring.race.race import run_race
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


def test_the_fit_is_the_one_with_the_rate_that_won(make_trainer: MakeTrainer) -> None:
    """Bit for bit, with all weights trained under dropout."""
    losses: dict[str, list[float]] = {}
    race = RateRace(rates=[1e-5, 1e-2], batches=2, held_out=2, allowance=20)
    for name in ("raced", "given"):
        seed_everything(3, verbose=False)
        module = ForeignModule(hidden_dropout_prob=0.3)
        if race.result is not None:
            module.learning_rate = race.result.winner.rate
        trainer = make_trainer(callbacks=[race] if name == "raced" else [])
        trainer.fit(module, token_batches())
        losses[name] = module.losses
    assert race.result is not None
    assert race.result.winner.rate in (1e-5, 1e-2)
    assert losses["raced"] == losses["given"]


class Mixed(ForeignModule):
    """Trains a value in fp64 beside those in fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.scale.float()


def test_trained_values_may_differ_in_precision(make_trainer: MakeTrainer) -> None:
    race = RateRace(rates=[1e-5, 1e-2], batches=2, held_out=2, allowance=20)
    make_trainer(callbacks=[race]).fit(Mixed(), token_batches())
    assert race.result is not None


class Quadratic(LightningModule):
    """Finds the mean of its batches: by a rate of 0.1 in a few steps, by one above 1 never."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return (batch[0] - self.mean).square().sum(dim=1).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_a_rate_that_learns_beats_rates_that_do_not(make_trainer: MakeTrainer) -> None:
    """One that is too low leaves the loss where it was, one that is too high throws it off."""
    race = RateRace(rates=[1e-6, 0.1, 3.0], batches=8, held_out=4, allowance=100)
    loader = DataLoader(TensorDataset(torch.full((64, 3), 2.0)), batch_size=4)
    make_trainer(callbacks=[race], max_epochs=0).fit(Quadratic(), loader)
    assert race.result is not None
    assert [entrant.rate for entrant in race.result.ranking[:2]] == [0.1, 1e-6]
    # Each step leaves 1 - 2 * 0.1 of the distance.
    assert race.result.winner.laps[0].loss == pytest.approx(12 * 0.8**16, rel=1e-4)


@pytest.mark.parametrize("tune", ["value", "lora", "full"])
def test_any_way_can_be_raced(tune: str, backbone: str, sst2_dir: str, make_trainer: MakeTrainer) -> None:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    module = LanguageTaskModule(backbone, data.task, tune=tune, schedule="linear")
    race = RateRace(rates=[1e-4, 1e-2], batches=2, held_out=2, allowance=20)
    trainer = make_trainer(callbacks=[race])
    trainer.fit(module, datamodule=data)
    assert race.result is not None
    assert trainer.optimizers[0].param_groups[0]["initial_lr"] == race.result.winner.rate
    assert race.seconds > 0
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint[MODEL_KEY]["learning_rate"] == race.result.winner.rate


def test_a_resumed_fit_keeps_its_rate_without_a_race(make_trainer: MakeTrainer, tmp_path: object) -> None:
    first = RateRace(rates=[1e-5, 1e-2], batches=2, held_out=2, allowance=20)
    trainer = make_trainer(callbacks=[first])
    trainer.fit(ForeignModule(), token_batches())
    trainer.save_checkpoint(f"{tmp_path}/end.ckpt")
    again = RateRace(rates=[1e-5], batches=2, held_out=2, allowance=20)
    later = make_trainer(callbacks=[again], max_epochs=2)
    later.fit(ForeignModule(), token_batches(), ckpt_path=f"{tmp_path}/end.ckpt", weights_only=False)
    assert again.result is None
    assert later.optimizers[0].param_groups[0]["lr"] == trainer.optimizers[0].param_groups[0]["lr"]


@pytest.mark.parametrize("first", [True, False])
def test_what_a_selection_keeps_is_raced_whatever_the_order(
    first: bool, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[str] = []
    module = ForeignModule()

    def spy(trainer: Trainer, pl_module: ForeignModule, candidates: dict[str, list[nn.Parameter]], *rest: Any) -> Any:
        (mine,) = candidates.values()
        raced.extend(name for name, value in module.named_parameters() if any(value is each for each in mine))
        return run_race(trainer, pl_module, candidates, *rest)

    monkeypatch.setattr(rate_race, "run_race", spy)
    race = RateRace(rates=[1e-4, 1e-2], batches=2, held_out=2, allowance=20)
    selection = BiasSelectionCallback(approach="gradient", batches=2)
    make_trainer(callbacks=[race, selection] if first else [selection, race]).fit(module, token_batches())
    assert raced
    assert raced == [name for name, value in module.named_parameters() if value.requires_grad]


def test_two_races_are_an_error(make_trainer: MakeTrainer) -> None:
    with pytest.raises(BeftError, match="leave out RateRace"):
        make_trainer(callbacks=[RateRace(), BiasSelectionCallback("race")]).fit(ForeignModule(), token_batches())


def test_no_rates_are_an_error() -> None:
    with pytest.raises(BeftError, match="rates is empty"):
        RateRace(rates=[])
