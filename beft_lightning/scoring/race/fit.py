"""The learning rate of the fit around a race."""

from dataclasses import replace

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.learning_rate import set_rate
from beft_lightning.scoring.race.settings import RaceSettings


def races_rates(module: LightningModule, settings: RaceSettings) -> bool:
    """Return whether a race chooses the learning rate: unless it has no rates, or the user has given the module one.

    Args:
        module: The module. A LanguageTaskModule knows whether its ``learning_rate`` was given.
        settings: The settings of the race.
    """
    return bool(settings.rates) and not getattr(module, "learning_rate_given", False)


def settings_for(module: LightningModule, settings: RaceSettings) -> RaceSettings:
    """Return the settings of a race; without rates if the user has given the module one.

    Args:
        module: The module.
        settings: The settings asked for.
    """
    if not settings.rates or races_rates(module, settings):
        return settings
    rank_zero_info("The module was given a learning rate, which the race keeps. Leave it out to race rates, too.")
    return replace(settings, rates=())


def give_rate(trainer: Trainer, rate: float) -> None:
    """Give the fit's optimizer and its schedulers the learning rate that a race has chosen.

    Args:
        trainer: A trainer with its optimizer set up, before a checkpoint's optimizer state is loaded.
        rate: The learning rate.
    """
    set_rate(trainer.optimizers[0], rate, [config.scheduler for config in trainer.lr_scheduler_configs])
