"""The command line behind ``python -m beft_lightning``: a LightningCLI that knows this package's parts."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from beft_lightning.callbacks import (
    AdapterCheckpoint,
    BiasSelectionCallback,
    Interruption,
    LastCheckpoint,
    NonFiniteCheck,
    PredictionWriter,
    RunSummary,
)
from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.data import LanguageDataModule
from beft_lightning.errors import BeftError
from beft_lightning.resume import NAMES, find_checkpoint
from beft_lightning.tasks import LanguageTaskModule
from beft_lightning.trainer import BeftTrainer
from beft_lightning.tuning.methods import AUTO

__all__ = ["ArgumentError", "BeftCLI", "MisconfigurationException"]


#: Options of the trainer that do not change results.
_PLACEMENT = frozenset(
    {"accelerator", "devices", "num_nodes", "default_root_dir", "logger", "profiler", "log_every_n_steps", "callbacks"}
    | {"enable_checkpointing", "enable_model_summary", "enable_progress_bar"}
)


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
            # A dictionary for each: Lightning writes the command's description into it.
            parser_kwargs={name: dict(options) for name in self.subcommands()} | options,
            args=args,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """LightningCLI's own commands and ours, with the arguments that are not options."""
        return {
            **LightningCLI.subcommands(),
            **{name: {"model", "datamodule"} for name in ("score", "compare", "plan", "download")},
        }

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Let the switch of ``plan`` stand without a value."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for action in parser._actions:
            if action.dest == "json":
                action.nargs, action.const = "?", True
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' options, what the parts tell each other, and the defaults."""
        parser.add_lightning_class_args(BiasSelectionCallback, "selection")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(NonFiniteCheck, "nonfinite")
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
        if config.get("ckpt_path") in NAMES:
            root = config.trainer.default_root_dir or Path.cwd()
            required = self.config.get("subcommand") != "fit"  # an evaluation has to be one of something
            found = find_checkpoint(config["ckpt_path"], root, required=required)
            config["ckpt_path"] = None if found is None else str(found)
        if path := config.get("ckpt_path"):
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
        trainer.callbacks.extend([AdapterCheckpoint(), RunSummary(), PredictionWriter(), Interruption()])
        if self.subcommand == "compare":
            if self._get(self.config, "trainer.callbacks"):
                raise BeftError("compare keeps its own watch over each run: leave out trainer.callbacks.")
            self._scratch = TemporaryDirectory(prefix="beft-")
            trainer.remake = self._bare_trainer
            trainer.description = self._description()
        return trainer

    def _description(self) -> str:
        """What results depend on, as text: not where and on how many devices they are made."""
        text = yaml.safe_load(self._parser(self.subcommand).dump(self.config[self.subcommand]))
        trainer = {name: value for name, value in text["trainer"].items() if name not in _PLACEMENT}
        return yaml.safe_dump({"trainer": trainer, "model": text["model"], "data": text["data"]})

    def _bare_trainer(self, callbacks: list[Callback]) -> Trainer:
        """A trainer with the same options that leaves nothing behind."""
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "callbacks": callbacks}
        options = {**self._get(self.config_init, "trainer"), **quiet, "default_root_dir": self._scratch.name}
        trainer: Trainer = self.trainer_class(**options)
        return trainer
