"""The jobs of the study: a run of training, or the scores of a setting; each leaves one JSON file."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning import data as data_modules
from beft_lightning.data import LanguageDataModule
from beft_lightning.files import finite_or_none, write_text_atomically
from beft_lightning.scoring.race.settings import RaceSettings
from benchmarks.selection.settings import LONG, LONG_RACE, OUT, SCORING_BATCHES, SETTINGS, Setting


class Curve(Callback):
    """The main metric on the development and the test examples after each epoch."""

    def __init__(self) -> None:
        self.dev: list[float] = []
        self.test: list[float] = []

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate, except in Lightning's check before the first epoch."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, LanguageTaskModule)
        metric = pl_module.task.metrics[0]
        dev: Any = pl_module.validation_metrics[0]
        self.dev.append(float(dev.named()[f"{dev.prefix}{metric}"].compute()))
        test: Any = pl_module.test_metrics[0]
        assert pl_module.objective is not None
        assert pl_module.model is not None
        for batch in trainer.datamodule.test_dataloader()[0]:  # type: ignore[attr-defined]
            test.update(pl_module.objective.evaluate(pl_module.model, batch)[0], batch)
        self.test.append(float(test.named()[f"{test.prefix}{metric}"].compute()))
        for each in test.named().values():
            each.reset()


class ScoreOnly(Callback):
    """End a fit before its first batch, and so after the scores; its length still says what a race may cost."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the trainer to stop."""
        trainer.should_stop = True


def parts(setting: Setting, out: Path, seed: int, **options: Any) -> tuple[LanguageTaskModule, LanguageDataModule]:
    """Return the module and the data of a setting, with the seed set for both.

    Args:
        setting: The setting.
        out: Folder of the study.
        seed: Seed of the head, the subset, its order and dropout.
        options: Further arguments of the module.
    """
    seed_everything(seed, verbose=False)
    model, arguments = _placed(setting.model, out), _placed(setting.data, out)
    arguments["tokenizer"] = model["backbone"]
    if setting.benchmark != "ImageTable":
        arguments |= {"gguf_file": model.get("gguf_file"), "data_dir": os.environ["BEFT_DATA_DIR"]}
    data: LanguageDataModule = getattr(data_modules, setting.benchmark)(**arguments, seed=seed)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    return LanguageTaskModule(task=data.task, **model, **options), data


def _placed(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return arguments with the study's folder at its place in their texts."""
    return {
        name: value.replace(OUT, str(out)) if isinstance(value, str) else value for name, value in arguments.items()
    }


def make_trainer(epochs: int, *callbacks: Callback) -> Trainer:
    """Return a quiet trainer on one CPU."""
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks],
        gradient_clip_val=1.0,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **quiet,
    )


def train(setting: Setting, out: Path, way: str, rate: float, seed: int) -> dict[str, Any]:
    """Train one way at one rate with one seed, and return its curves."""
    module, data = parts(setting, out, seed, tune=way, learning_rate=rate)
    curve = Curve()
    start = time.perf_counter()
    trainer = make_trainer(setting.epochs, curve)
    trainer.fit(module, datamodule=data)
    finite = all(bool(p.isfinite().all()) for p in module.parameters() if p.requires_grad)
    return {
        "setting": setting.name,
        "way": way,
        "rate": rate,
        "seed": seed,
        "dev": [finite_or_none(v) for v in curve.dev],
        "test": [finite_or_none(v) for v in curve.test],
        "steps": trainer.global_step // setting.epochs,
        "diverged": not finite,
        "seconds": time.perf_counter() - start,
    }


def score(setting: Setting, out: Path, approach: str, seed: int) -> dict[str, Any]:
    """Score the terms of a setting by an approach or a race, and return scores, pick and cost."""
    module, data = parts(setting, out, seed, tune="auto")
    callback = BiasSelectionCallback(
        "race" if approach == LONG else approach,
        terms=setting.terms,
        batches=SCORING_BATCHES,
        patience=0,
        race=RaceSettings(allowance=LONG_RACE if approach == LONG else None),
    )
    make_trainer(setting.epochs, callback, ScoreOnly()).fit(module, datamodule=data)
    found: dict[str, Any] = {"setting": setting.name, "approach": approach, "seed": seed}
    if callback.raced is not None:
        result = callback.raced.result
        found |= {"terms": callback.raced.scores, "ties": result.ties, "rate": result.winner.rate}
        found |= {"pick": result.winner.term, "batches": result.cost.batches}
    else:
        assert callback.scores is not None
        found |= {"terms": {term: entry.score for term, entry in callback.scores.terms.items()}}
        found |= {"pick": callback.scores.ranking[0], "batches": SCORING_BATCHES}
    return found | {"seconds": callback.seconds}


def run_job(job: dict[str, Any], path: str) -> float:
    """Run a job in one thread, and write its file; return its seconds."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    setting, out = SETTINGS[job["setting"]], Path(path).parent.parent
    if "way" in job:
        result = train(setting, out, job["way"], job["rate"], job["seed"])
    else:
        result = score(setting, out, job["approach"], job["seed"])
    write_text_atomically(Path(path), json.dumps(result, indent=2, allow_nan=False) + "\n")
    return time.perf_counter() - start
