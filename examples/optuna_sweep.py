"""A search for the bias term and the learning rate with Optuna, on SST-2.

``python examples/optuna_sweep.py BACKBONE DATA_DIR`` prints the best of eight fits; it needs ``pip install optuna``.
"""

import sys

import optuna
from lightning.pytorch import Trainer, seed_everything

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Glue


def sweep(backbone: str, data_dir: str, trials: int = 8, train_size: int = 256) -> optuna.Study:
    """Return the study: each trial is a fit of one epoch on some sentences, judged by its accuracy."""

    def accuracy(trial: optuna.Trial) -> float:
        seed_everything(0)
        data = Glue(backbone, task="sst2", data_dir=data_dir, train_size=train_size, seed=0)
        tune = trial.suggest_categorical("tune", ["query", "value", "attention_output"])
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
        trainer.fit(LanguageTaskModule(backbone, data.task, tune=tune, learning_rate=rate), data)
        return trainer.callback_metrics["val_accuracy"].item()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(accuracy, n_trials=trials)
    return study


if __name__ == "__main__":
    print(sweep(*sys.argv[1:]).best_trial.params)
