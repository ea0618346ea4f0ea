"""The command line behind ``python -m beft_lightning``: a LightningCLI that knows this package's parts."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from beft_lightning.callbacks import AdapterCheckpoint, BiasSelectionCallback, PredictionWriter, RunSummary
from beft_lightning.callbacks.adapter_checkpoint import read_checkpoint
from beft_lightning.callbacks.score_report import plot_scores
from beft_lightning.data import LanguageDataModule
from beft_lightning.errors import BeftError
from beft_lightning.tasks import LanguageTaskModule
from beft_lightning.tasks.tuning import AUTO

__all__ = ["ArgumentError", "BeftCLI", "BeftTrainer", "MisconfigurationException"]


class BeftTrainer(Trainer):
    """A Trainer with this package's extra commands."""

    callbacks: list[Callback]

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
        if selection.approach == "fixed":
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


class BeftCLI(LightningCLI):
    """LightningCLI for a LanguageTaskModule and any LanguageDataModule, with the callbacks wired in."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        # An error shall be one message, not a page of usage before it.
        options: dict[str, Any] = {"prog": "python -m beft_lightning", "exit_on_error": False}
        super().__init__(
            model_class=LanguageTaskModule,
            datamodule_class=LanguageDataModule,
            subclass_mode_data=True,
            trainer_class=BeftTrainer,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs=dict.fromkeys(self.subcommands(), options) | options,
            args=args,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """LightningCLI's own commands and ours, with the arguments that are not options."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in ("score", "download")}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' options, what the parts tell each other, and the defaults."""
        parser.add_lightning_class_args(BiasSelectionCallback, "selection")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.link_arguments("model.backbone", "data.init_args.tokenizer")
        parser.link_arguments("model.gguf_file", "data.init_args.gguf_file")
        parser.link_arguments("data.task", "model.task", apply_on="instantiate")
        parser.set_defaults(
            {
                "checkpoint.save_last": True,
                "checkpoint.save_top_k": 0,
                "trainer.gradient_clip_val": 1.0,
                "trainer.log_every_n_steps": 10,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and look at the checkpoint before anything is built."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand] if self.config.get("subcommand") else self.config
        if path := config.get("ckpt_path"):
            if str(path) not in ("last", "hpc"):
                read_checkpoint(path)
            # Unset, it would mean that Lightning may execute code from the file.
            config["weights_only"] = True

    def before_instantiate_classes(self) -> None:
        """Log to a CSV file unless another logger was asked for; miss DeepSpeed before anything is loaded."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        strategy = config.trainer.strategy
        name = strategy if isinstance(strategy, str) else strategy.class_path
        if "deepspeed" in name.lower() and find_spec("deepspeed") is None:
            raise BeftError(
                f"trainer.strategy {name} needs DeepSpeed, which is not installed: `pip install deepspeed`."
            )
        if config.trainer.logger in (None, True):
            folder = config.trainer.default_root_dir or str(Path.cwd())
            config.trainer.logger = Namespace(
                class_path="lightning.pytorch.loggers.CSVLogger", init_args=Namespace(save_dir=folder)
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with the callbacks that this run needs."""
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:
            raise BeftError(f"the trainer's options do not fit together: {error}") from error
        assert isinstance(trainer, BeftTrainer)
        if self.model.tune != AUTO and self.subcommand != "score":
            trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, BiasSelectionCallback)]
        if self.subcommand in ("validate", "test", "predict") and not self._get(self.config, "ckpt_path"):
            rank_zero_warn("No --ckpt_path is given: what is evaluated is the backbone as it is, under a new head.")
        trainer.callbacks.extend([AdapterCheckpoint(), RunSummary(), PredictionWriter()])
        return trainer
