"""Lightning's Trainer with this package's commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.commands.compare import compare
from beft_lightning.commands.download import download
from beft_lightning.commands.plan import print_plan
from beft_lightning.commands.score import score
from beft_lightning.data import LanguageDataModule
from beft_lightning.errors import BeftError
from beft_lightning.tasks import LanguageTaskModule


class BeftTrainer(Trainer):
    """Lightning's Trainer with this package's commands as methods.

    LightningCLI takes a command's options and their help from a method of the trainer.
    """

    callbacks: list[Callback]
    #: Makes another trainer with the same options but those given. The command line sets it.
    make_trainer: Callable[..., Trainer] | None = None
    #: All options that results depend on, as text. The command line sets it.
    configuration: str = ""

    @property
    def bias_selection(self) -> BiasSelectionCallback | None:
        """The callback that selects bias terms, if there is one."""
        return next((callback for callback in self.callbacks if isinstance(callback, BiasSelectionCallback)), None)

    def score(self, model: LightningModule, out: str, datamodule: LightningDataModule | None = None) -> None:
        """Score the bias terms without training, and write the scores to a folder.

        Args:
            model: The module whose bias terms are scored.
            out: Folder for ``scores.json``, ``scores.csv`` and ``scores.png``.
            datamodule: Where the training batches come from.
        """
        assert self.bias_selection is not None
        score(self, self.bias_selection, model, datamodule, Path(out))

    def compare(
        self,
        model: LightningModule,
        tune: list[str],
        out: str,
        seeds: list[int] = [0],  # noqa: B006  # read by the parser, never changed
        rates: dict[str, float] | Literal["auto"] | None = None,
        options: dict[str, dict[str, Any]] | None = None,
        datamodule: LightningDataModule | None = None,
    ) -> None:
        """Train the same model with several methods, each with several seeds, and write one table.

        Args:
            model: The module to train.
            tune: What to train: values of `model.tune`, and `zero_shot`.
            out: Folder for `results.csv`, `results.md`, pictures and each run's own file. Runs that it already
                holds are not repeated, and reported along.
            seeds: Seeds of the runs. A `data.seed` holds for all of them, as in a fit.
            rates: Learning rates of single methods; the configuration's holds for the others, but 1e-5 for `full`.
                With `auto`, a short race chooses the rate of each run, and the table names it.
            options: `tune_options` of single methods, for example `{"lora": {"r": 4}}`; the configuration's hold for
                the others.
            datamodule: The data. With `dev_size`, the best epoch is chosen and reported beside the last.
        """
        assert isinstance(model, LanguageTaskModule)
        assert isinstance(datamodule, LanguageDataModule)
        assert self.make_trainer is not None
        if self.world_size > 1:
            raise BeftError("compare runs in one process: set trainer.devices to 1, and start one for each seed.")
        compare(
            self.make_trainer,
            self.configuration,
            model,
            datamodule,
            tune,
            seeds,
            Path(out),
            rates=rates,
            options=options,
        )

    def download(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Fetch the backbone and the data into their caches, for machines without network.

        Args:
            model: The module whose backbone is fetched.
            datamodule: The data to fetch.
        """
        download(model, datamodule)

    def plan(
        self,
        model: LanguageTaskModule,
        datamodule: LightningDataModule | None = None,
        json: bool = False,
        seconds: bool = False,
    ) -> None:
        """Print what a fit will train, store and send, before any weights are loaded; and how long it takes.

        Args:
            model: The module whose fit is planned.
            datamodule: The data; read for `seconds` only.
            json: Print JSON, sizes in bytes; `--json` alone means true.
            seconds: Load model and data, time a few steps, and print the times of scoring or race, epoch and fit;
                `--seconds` alone means true.
        """
        print_plan(self, model, datamodule, self.bias_selection, as_json=json, seconds=seconds)
