"""Lightning's Trainer with this package's extra commands."""

from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any

import rich
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.commands.compare import Comparison
from beft_lightning.commands.compare_report import results_table, write_report
from beft_lightning.commands.plan import plan_fit
from beft_lightning.data import LanguageDataModule
from beft_lightning.errors import BeftError
from beft_lightning.scoring.report import plot_scores
from beft_lightning.tasks import LanguageTaskModule


class BeftTrainer(Trainer):
    """A Trainer with this package's extra commands."""

    callbacks: list[Callback]
    #: Makes another trainer with the same options and the callbacks given.
    remake: Callable[[list[Callback]], Trainer] | None = None
    #: The configuration as text.
    description: str = ""

    def score(self, model: LightningModule, out: str, datamodule: LightningDataModule | None = None) -> None:
        """Score the bias terms without training, and write the scores to a folder.

        Args:
            model: The module whose bias terms are scored.
            out: Folder for ``scores.json``, ``scores.csv`` and ``scores.png``.
            datamodule: Where the training batches come from.
        """
        (selection,) = [callback for callback in self.callbacks if isinstance(callback, BiasSelectionCallback)]
        if Path(out).exists() and not Path(out).is_dir():
            raise BeftError(f"--out {out}: a file is in the way; give a folder.")
        if selection.scores_file is not None:
            raise BeftError("score makes new scores: leave out --selection.scores.")
        if selection.is_fixed:
            raise BeftError("score has nothing to do with approach 'fixed': choose projection, magnitude or fisher.")
        # A fit of no epochs ends right after the selection.
        self.fit_loop.max_epochs = 0
        self.fit(model, datamodule=datamodule)
        if selection.scores is None:
            raise BeftError(
                "nothing was scored: biases that all start at zero cannot be ranked by projection. "
                "Use --selection.approach magnitude or fisher."
            )
        if self.is_global_zero:
            selection.scores.save(out)
            plot_scores(selection.scores, Path(out) / "scores.png")
            rank_zero_info(f"Wrote the scores to {out}")

    def compare(
        self,
        model: LightningModule,
        tune: list[str],
        out: str,
        seeds: list[int] = [0],  # noqa: B006  # read by the parser, never changed
        rates: dict[str, float] | None = None,
        options: dict[str, dict[str, Any]] | None = None,
        datamodule: LightningDataModule | None = None,
    ) -> None:
        """Train the same model in several ways, each with several seeds, and write one table.

        Args:
            model: The module to train.
            tune: What to train: values of `model.tune`, and `zero_shot`.
            out: Folder for `results.csv`, `results.md`, `results.png` and each run's own file. Runs that it already
                holds are not repeated, and reported along.
            seeds: Seeds of the runs. A `data.seed` holds for all of them, as in a fit.
            rates: Learning rates of single ways; the configuration's holds for the others, but 1e-5 for `full`.
            options: `tune_options` of single ways, for example `{"lora": {"r": 4}}`; the configuration's hold for the
                others.
            datamodule: The data. With `dev_size`, the best epoch is chosen and reported beside the last.
        """
        assert isinstance(model, LanguageTaskModule)
        assert isinstance(datamodule, LanguageDataModule)
        assert self.remake is not None
        if self.world_size > 1:
            raise BeftError("compare runs in one process: set trainer.devices to 1, and start one for each seed.")
        if Path(out).exists() and not Path(out).is_dir():
            raise BeftError(f"--out {out}: a file is in the way; give a folder.")
        comparison = Comparison(model, datamodule, self.remake, Path(out), self.description, rates, options)
        comparison.run(tune, seeds)
        runs = comparison.results()
        write_report(runs, Path(out))  # before the measures, which may fail
        write_report(runs, Path(out), comparison.measure(runs))
        rich.print(results_table(runs))
        rank_zero_info(f"Wrote results.csv, results.md and results.png to {out}")

    def download(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Fetch the backbone and the data into their caches, for machines without network.

        Args:
            model: The module whose backbone is fetched.
            datamodule: The data to fetch.
        """
        datamodule.prepare_data()
        datamodule.setup("fit")
        model.configure_model()
        rank_zero_info("Everything is in the caches; set HF_HUB_OFFLINE=1 where there is no network.")

    def plan(
        self, model: LanguageTaskModule, datamodule: LightningDataModule | None = None, json: bool = False
    ) -> None:
        """Say what a fit will train, store and send, before any weights are loaded.

        Args:
            model: The module whose fit is planned.
            datamodule: The data; not looked at.
            json: Print JSON, sizes in bytes.
        """
        selection = next((c for c in self.callbacks if isinstance(c, BiasSelectionCallback)), None)
        plan = plan_fit(model, selection)
        if json:
            print(dumps(plan.to_dict(), indent=2))
        else:
            rich.print(plan.table())
