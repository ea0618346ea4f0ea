"""The command line behind ``python -m beft_lightning``: a LightningCLI with this package's parts."""

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.enums import LightningEnum
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from beft_lightning.callbacks import (
    AdapterCheckpoint,
    BiasSelectionCallback,
    Interruption,
    LastCheckpoint,
    NonFiniteCheck,
    PredictionWriter,
    RunSummary,
    Terminal,
)
from beft_lightning.callbacks.failed_start import FailedStart
from beft_lightning.callbacks.run_config import RunConfig
from beft_lightning.callbacks.tracking import start_loggers
from beft_lightning.checkpoint import read_checkpoint
from beft_lightning.data import LanguageDataModule
from beft_lightning.data.help import option_groups as data_groups
from beft_lightning.errors import BeftError
from beft_lightning.export.peft_checkpoint import write_as_checkpoint
from beft_lightning.export.peft_source import is_adapter
from beft_lightning.resume import NAMES, find_checkpoint
from beft_lightning.tasks import LanguageTaskModule
from beft_lightning.trainer import BeftTrainer
from beft_lightning.tuning.help import option_groups as method_groups

__all__ = ["ArgumentError", "BeftCLI", "MisconfigurationException"]

#: Options of the trainer that do not change results.
_PLACEMENT = frozenset(
    {"accelerator", "devices", "num_nodes", "default_root_dir", "logger", "profiler", "log_every_n_steps", "callbacks"}
    | {"enable_checkpointing", "enable_model_summary", "enable_progress_bar"}
)
#: Options of a comparison's trainers, which leave nothing behind.
_QUIET = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
#: Options of the model that name a class to call: the parser takes any callable there, also ``os.system``.
_FACTORIES: dict[str, type] = {"optimizer": Optimizer, "lr_scheduler": LRScheduler}

# Defaults of Lightning's callbacks (Timer's interval), which the parser could not write into config.yaml otherwise.
yaml.SafeDumper.add_multi_representer(LightningEnum, lambda dumper, value: dumper.represent_str(value.value))


class BeftCLI(LightningCLI):
    """LightningCLI for a LanguageTaskModule and any LanguageDataModule, with this package's callbacks.

    Args:
        args: The command line; by default that of this process.
        run: Run the command. Without, there are no commands, and the parser knows the options that all share.
    """

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        # An error is one message, without a page of usage before it.
        options: dict[str, Any] = {"prog": "python -m beft_lightning", "exit_on_error": False}
        super().__init__(
            model_class=LanguageTaskModule,
            datamodule_class=LanguageDataModule,
            subclass_mode_data=True,
            trainer_class=BeftTrainer,
            trainer_defaults={
                "callbacks": [AdapterCheckpoint(), RunSummary(), PredictionWriter(), Interruption()],
                "gradient_clip_val": 1.0,
                "log_every_n_steps": 10,
                "enable_model_summary": False,  # Terminal says what is trained
            },
            save_config_callback=RunConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # A dictionary for each: Lightning writes the command's description into it.
            parser_kwargs={name: dict(options) for name in self.subcommands()} | options,
            args=args,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return LightningCLI's own commands and ours, with the arguments that are not options."""
        return {
            **LightningCLI.subcommands(),
            **{name: {"model", "datamodule"} for name in ("score", "compare", "plan", "download")},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' options, the links between the parts, and the defaults."""
        # Not as a callback that every trainer gets: see instantiate_trainer.
        parser.add_class_arguments(BiasSelectionCallback, "selection", fail_untyped=False, sub_configs=True)
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(NonFiniteCheck, "nonfinite")
        parser.link_arguments("model.backbone", "data.init_args.tokenizer")
        parser.link_arguments("model.gguf_file", "data.init_args.gguf_file")
        parser.link_arguments("model.random_init", "data.init_args.random_init")
        parser.link_arguments("data.task", "model.task", apply_on="instantiate")
        for title, description in (*data_groups(), *method_groups()):
            parser.add_argument_group(title, description)
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_top_k": 0})

    def setup_parser(self, add_subcommands: bool, *kwargs: dict[str, Any]) -> None:
        """Make the parser; Lightning's own table of results is left out, as RunSummary prints one."""
        super().setup_parser(add_subcommands, *kwargs)
        if add_subcommands:
            self.parser.set_defaults({"validate.verbose": False, "test.verbose": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, and check the checkpoint before anything is built."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand] if self.config.get("subcommand") else self.config
        for name in ("trainer", "selection", "checkpoint", "nonfinite"):
            if not isinstance(config[name], Namespace):
                kind = type(config[name]).__name__
                raise BeftError(f"{name} is a {kind}: give its options by name, as in the files of configs/.")
        if config.get("ckpt_path") in NAMES:
            root = config.trainer.default_root_dir or Path.cwd()
            required = self.config.get("subcommand") != "fit"  # an evaluation has to be one of something
            found = find_checkpoint(config["ckpt_path"], root, required=required)
            config["ckpt_path"] = None if found is None else str(found)
        if path := config.get("ckpt_path"):
            if not is_adapter(path):
                read_checkpoint(path)
            elif self.config.get("subcommand") == "fit":
                raise BeftError(
                    f"--ckpt_path {path}: an adapter of PEFT, without the state of an optimizer that a fit goes on "
                    "with: evaluate or export it, or go on from a checkpoint of a fit."
                )
            # Unset, it would mean that Lightning may execute code from the file.
            config["weights_only"] = True

    def before_instantiate_classes(self) -> None:
        """Check options before anything is loaded, and log to a CSV file unless another logger was asked for."""
        config = self._of_command(self.config)
        strategy = config.trainer.strategy
        name = strategy if isinstance(strategy, str) else strategy.class_path
        if "deepspeed" in name.lower() and find_spec("deepspeed") is None:
            raise BeftError(
                f"trainer.strategy {name} needs DeepSpeed, which is not installed: `pip install deepspeed`."
            )
        if self.subcommand == "compare" and config.trainer.callbacks:
            raise BeftError("compare has its own callback for each run: leave out trainer.callbacks.")
        if self.subcommand in ("validate", "test", "predict") and not config.get("ckpt_path"):
            rank_zero_warn("No --ckpt_path is given: what is evaluated is the backbone as it is, under a new head.")
        if (path := config.get("ckpt_path")) and is_adapter(path):
            # The Trainer evaluates files of its own format; the folder lives as long as this object.
            self._converted = TemporaryDirectory(prefix="beft-adapter-")
            model, converted = config.model, Path(self._converted.name) / "adapter.ckpt"
            config["ckpt_path"] = str(
                write_as_checkpoint(Path(path), converted, model.backbone, model.gguf_file, model.dtype)
            )
        for name, base in _FACTORIES.items():
            _check_factory(f"model.{name}", config.model[name], base)
        if self.subcommand == "score" and config.trainer.logger in (None, True):
            config.trainer.logger = False
        elif config.trainer.logger in (None, True):
            folder = config.trainer.default_root_dir or str(Path.cwd())
            config.trainer.logger = Namespace(
                class_path="lightning.pytorch.loggers.CSVLogger", init_args=Namespace(save_dir=folder)
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with the callback that selects bias terms if the command or ``model.tune`` asks for it."""
        config = self._of_command(self.config_init)
        if config.trainer.max_epochs is None and config.trainer.max_steps == -1 and config.trainer.max_time is None:
            config.trainer.max_epochs = self.model.task.epochs  # Lightning's own default is 1,000.
        given = config.trainer.callbacks or []
        callbacks = [*given] if isinstance(given, list) else [given]
        if self.subcommand == "score":  # leaves its scores, and nothing else
            self.save_config_callback = None
            self.trainer_defaults["callbacks"] = [Interruption()]
        if any(isinstance(callback, BiasSelectionCallback) for callback in callbacks):
            raise BeftError("trainer.callbacks names a BiasSelectionCallback: give its options as selection instead.")
        if self.model.method is None or self.subcommand == "score":
            callbacks.append(config.selection)
        own_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config.trainer.enable_progress_bar is not False and not own_bar:
            callbacks.append(Terminal())
        try:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except (ValueError, TypeError) as error:
            raise BeftError(f"the trainer's options do not fit together: {error}") from error

    def _before_run(self) -> None:
        """Start the loggers, whose folders go again if the start fails."""
        self.trainer.callbacks.append(FailedStart(self.trainer))  # type: ignore[attr-defined]
        start_loggers(self.trainer)

    before_fit = before_validate = before_test = before_predict = _before_run

    def before_compare(self) -> None:
        """Give the trainer what a comparison's own trainers are made of."""
        assert isinstance(self.trainer, BeftTrainer)
        options = {**self._of_command(self.config_init).trainer, **_QUIET}
        if not sys.stdout.isatty():  # Lightning's bars would fill a file.
            options["enable_progress_bar"] = False
        self.trainer.make_trainer = partial(self.trainer_class, **options)
        # What results depend on; not where and on how many devices they are made.
        text = yaml.safe_load(self.parser.dump(self.config))[self.subcommand]
        trainer = {name: value for name, value in text["trainer"].items() if name not in _PLACEMENT}
        # An option at the value that means what there was before it: a comparison of an earlier version goes on.
        if text["data"]["init_args"].get("group_by_length") == "blocks":
            del text["data"]["init_args"]["group_by_length"]
        self.trainer.configuration = yaml.safe_dump({"trainer": trainer, "model": text["model"], "data": text["data"]})

    def _of_command(self, config: Namespace) -> Namespace:
        """Return the command's part of a configuration; without commands, the configuration is that part."""
        return config[self.subcommand] if self.subcommand else config


def _check_factory(option: str, value: Any, base: type) -> None:
    """Check that an option names a subclass of ``base``, before anything is made of it.

    Raises:
        BeftError: If it names another class, or a function.
    """
    if value is None:
        return
    path = value.get("class_path") if isinstance(value, Namespace) else None
    named = resolve_name(path) if path else value
    if not (isinstance(named, type) and issubclass(named, base)):
        raise BeftError(
            f"{option} is {path or value}, which is no subclass of {base.__module__}.{base.__name__}: give one as "
            "class_path."
        )
