"""What a run shows: a panel, a bar that goes away, a line for each epoch, and the next commands."""

import re
import shlex
from collections.abc import Callable
from io import StringIO

import pytest
from lightning.pytorch import Trainer
from rich.console import Console

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.__main__ import export_parser, predict_parser
from beft_lightning.callbacks import LastCheckpoint, Terminal
from beft_lightning.data import Glue
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]
#: Moves the cursor up or clears the line: what a bar needs.
ESCAPE = "\x1b["


@pytest.fixture
def data(backbone: str, sst2_dir: str) -> Glue:
    return Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)


def fitted(make_trainer: MakeTrainer, module: LanguageTaskModule, data: Glue, console: Console) -> str:
    callbacks = [Terminal(console), AdapterCheckpoint(), LastCheckpoint(save_last=True)]
    if module.method is None:
        callbacks.append(BiasSelectionCallback(batches=2))
    trainer = make_trainer(callbacks=callbacks, max_epochs=2, enable_checkpointing=True, enable_progress_bar=True)
    trainer.fit(module, datamodule=data)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_text_alone(backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    shown = fitted(make_trainer, LanguageTaskModule(backbone, data.task), data, Console(file=StringIO(), width=200))
    assert ESCAPE not in shown
    assert "48 examples, 6 batches an epoch" in shown
    lines = shown.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all("val_accuracy" in line and "train_loss" in line for line in epochs)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_bar_that_goes_away(
    width: int, backbone: str, data: Glue, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr("beft_lightning.progress.Console", lambda: console)
    shown = fitted(make_trainer, LanguageTaskModule(backbone, data.task), data, console)
    assert "12/12" in shown  # both epochs in one bar
    assert "0/0" not in shown
    assert re.search("reading and encoding.*scoring.*training", shown, re.DOTALL)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").splitlines()
    assert max(len(line) for line in lines if "accuracy" in line) <= width
    end = shown[shown.rindex("epoch 2/2") :]
    assert end.rindex("next (columns of new.csv: sentence):") > end.rindex(
        ESCAPE
    )  # the bar is gone before the last lines


@pytest.mark.parametrize("tune", ["value", "lora"])
def test_the_next_commands_can_be_copied(tune: str, backbone: str, data: Glue, make_trainer: MakeTrainer) -> None:
    # Narrower than the path: a command in two lines could not be copied.
    shown = fitted(
        make_trainer, LanguageTaskModule(backbone, data.task, tune=tune), data, Console(file=StringIO(), width=40)
    )
    commands = [shlex.split(line)[3:] for line in shown.splitlines() if line.startswith("  python -m beft_lightning")]
    assert [command for command, *_ in commands] == (["predict", "export"] if tune == "value" else ["predict"])
    predict_parser().parse_args(commands[0][1:])
    if tune == "value":
        export_parser().parse_args(commands[1][1:])


def test_any_module_can_have_it(make_trainer: MakeTrainer) -> None:
    console = Console(file=StringIO(), width=100)
    trainer = make_trainer(callbacks=[Terminal(console)], enable_progress_bar=True, max_epochs=1)
    trainer.fit(ForeignModule(), token_batches())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ForeignModule" in shown
    assert "epoch 1/1" in shown
    assert "next (" not in shown


def test_other_processes_print_nothing(make_trainer: MakeTrainer) -> None:
    console = Console(file=StringIO())
    terminal = Terminal(console)
    trainer = make_trainer(callbacks=[terminal], enable_progress_bar=True, max_epochs=1)
    terminal.disable()
    trainer.fit(ForeignModule(), token_batches())
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
