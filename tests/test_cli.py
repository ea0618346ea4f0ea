"""The command line: every command, and what a user gets wrong."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from beft_lightning import data
from beft_lightning.__main__ import SUBCOMMANDS, main
from beft_lightning.checkpoint import FINGERPRINT_KEY, read_checkpoint
from beft_lightning.cli import BeftCLI
from beft_lightning.tuning import METHODS
from beft_lightning.tuning.peft_adapters import PeftTuning
from tests.tiny import LAYERS, save_backbone


def test_fit_then_validate_test_and_predict_in_turn(argv: Any, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv("fit")) == 0
    run = out / "version_0"
    files = {path.name for path in run.rglob("*") if path.is_file()}
    names = {"summary.json", "metrics.csv", "scores.json", "scores.csv", "last.ckpt", "config.yaml"}
    names |= {"scores.png", "scores.svg"}
    names.add("hparams.yaml")
    assert files == names
    fitted = json.loads((run / "summary.json").read_text())
    printed = capsys.readouterr().out
    assert "val_accuracy" in printed
    assert "trained parameters" in printed

    checkpoint = str(run / "checkpoints" / "last.ckpt")
    for version, command in enumerate(("validate", "test", "predict"), start=1):
        assert main(argv(command, "--ckpt_path", checkpoint)) == 0
        produced = out / f"version_{version}"
        if command != "predict":
            metrics = json.loads((produced / "summary.json").read_text())["metrics"]
            prefix = "val" if command == "validate" else "test"
            assert metrics[f"{prefix}_loss"] == pytest.approx(fitted["metrics"]["val_loss"], rel=1e-6)
            assert metrics[f"{prefix}_accuracy"] == fitted["metrics"]["val_accuracy"]
    assert len((out / "version_3" / "predictions.tsv").read_text().splitlines()) == 21


def test_a_saved_configuration_repeats_the_run(argv: Any, out: Path) -> None:
    assert main(argv("fit")) == 0
    assert main(["fit", "--config", str(out / "version_0" / "config.yaml")]) == 0
    first, second = (json.loads((out / f"version_{i}" / "summary.json").read_text())["metrics"] for i in (0, 1))
    assert first == second


def test_a_fused_architecture_can_be_described_in_yaml(argv: Any, out: Path, tmp_path: Path) -> None:
    """The mapping of one's own and the built-in one give the same run, and the saved configuration repeats it."""
    backbone = save_backbone(tmp_path / "gpt2", "gpt2")
    options = ["--model.backbone", backbone, "--selection.approach", "fixed", "--selection.terms", "[value]"]
    assert main(argv("fit", *options)) == 0
    mapping = """
    selection:
      architecture:
        layer: h.{}
        fused:
          attn.c_attn: {parts: {query: 1, key: 1, value: 1}, groups: 1}
    """
    (tmp_path / "mine.yaml").write_text(mapping)
    assert main(argv("fit", "--config", str(tmp_path / "mine.yaml"), *options)) == 0
    assert main(["fit", "--config", str(out / "version_1" / "config.yaml")]) == 0
    built_in, mine, repeated = (
        torch.load(out / f"version_{i}" / "checkpoints" / "last.ckpt", weights_only=True) for i in range(3)
    )
    assert sum(name.endswith("c_attn.parametrizations.bias.original2") for name in mine["beft_trained"]) == LAYERS
    for other in (built_in, repeated):
        torch.testing.assert_close(other["state_dict"], mine["state_dict"], rtol=0, atol=0)


def test_a_resumed_fit_ends_where_the_uninterrupted_one_does(argv: Any, out: Path) -> None:
    assert main(argv("fit", "--trainer.max_epochs", "2")) == 0
    assert main(argv("fit")) == 0
    checkpoint = str(out / "version_1" / "checkpoints" / "last.ckpt")
    assert main(argv("fit", "--trainer.max_epochs", "2", "--ckpt_path", checkpoint)) == 0
    whole, resumed = (json.loads((out / f"version_{i}" / "summary.json").read_text()) for i in (0, 2))
    assert whole["metrics"] == resumed["metrics"]
    assert not (out / "version_2" / "scores.json").exists()


@pytest.mark.parametrize("tune", ["value", "query,value", *sorted(METHODS)])
def test_whatever_is_trained_can_be_saved_and_evaluated(tune: str, argv: Any, out: Path) -> None:
    if tune in METHODS and issubclass(METHODS[tune], PeftTuning):
        pytest.importorskip("peft", reason="adapters need peft")
    assert main(argv("fit", "--model.tune", tune)) == 0
    checkpoint = out / "version_0" / "checkpoints" / "last.ckpt"
    # In another process, whatever was drawn at random must come from the file.
    assert main(argv("validate", "--model.tune", tune, "--ckpt_path", str(checkpoint), "--seed_everything", "9")) == 0
    fitted, validated = (json.loads((out / f"version_{i}" / "summary.json").read_text())["metrics"] for i in (0, 1))
    assert validated["val_loss"] == pytest.approx(fitted["val_loss"], rel=1e-5)
    state = read_checkpoint(checkpoint)["state_dict"]
    assert tune == "full" or len(state) < len(read_checkpoint(checkpoint)[FINGERPRINT_KEY])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fitt"], "no command 'fitt'; choose one of: fit, .* Did you mean 'fit'?"),
        (["--seed_everything", "1", "fit"], "--seed_everything: options follow the command, as in `python -m"),
        (["fit", "--config", "nowhere.yaml"], "--config nowhere.yaml: no such file"),
        (["fit", "--config=nowhere.yaml"], "--config nowhere.yaml: no such file"),
        (["validate", "--ckpt_path", "nowhere.ckpt"], "--ckpt_path nowhere.ckpt: no such file"),
        (["export", "--checkpoint", "nowhere.ckpt"], "--checkpoint nowhere.ckpt: no such file"),
        (["export", "--format", "onnx"], "invalid choice: 'onnx'"),
    ],
)
def test_a_wrong_command_or_file_is_answered_without_heavy_imports(arguments: list[str], message: str) -> None:
    code = (
        "import sys; from beft_lightning.__main__ import main; status = main(sys.argv[1:]); "
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules), 'heavy import'; sys.exit(status)"
    )
    finished = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert re.search(message, finished.stderr)
    assert len(finished.stderr.splitlines()) == 1


def test_a_command_from_the_shell_prints_no_warning_of_ours(argv: Any) -> None:
    command = [sys.executable, "-m", "beft_lightning", *argv("fit", "--trainer.fast_dev_run", "true")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "args parameter" not in finished.stderr


def test_help_needs_no_heavy_import_and_lists_every_command() -> None:
    code = (
        "import sys; from beft_lightning.__main__ import main; main(['--help']); "
        "assert not {'torch', 'lightning', 'transformers', 'jsonargparse'} & set(sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {command} " in printed for command in SUBCOMMANDS)
    assert set(SUBCOMMANDS) == set(BeftCLI.subcommands()) | {"export", "plot", "serve"}


def test_the_help_of_a_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "--help"])
    printed = capsys.readouterr().out
    assert "Print what a fit will train, store and send" in printed
    assert "`--json` alone means true" in printed


def test_the_help_of_export_needs_no_heavy_import() -> None:
    code = (
        "import sys; from beft_lightning.__main__ import main\n"
        "try: main(['export', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'lightning', 'transformers', 'jsonargparse'} & set(sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(option in printed for option in ("--checkpoint", "--format", "--out", "--dtype", "--backbone"))


def test_a_fit_is_exported_both_ways(argv: Any, out: Path, tmp_path: Path) -> None:
    """The whole path: the callback selects, the checkpoint alone says what was trained over which backbone."""
    assert main(argv("fit")) == 0
    checkpoint = str(out / "version_0" / "checkpoints" / "last.ckpt")
    for form, files in (
        ("peft", {"adapter_config.json", "adapter_model.safetensors"}),
        ("hf", {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}),
    ):
        assert main(["export", "--checkpoint", checkpoint, "--format", form, "--out", str(tmp_path / form)]) == 0
        assert files <= {path.name for path in (tmp_path / form).iterdir()}
    # The exported folder is a backbone itself: its accuracy is that of the fit, and so is its loss.
    assert main(argv("validate", "--model.backbone", str(tmp_path / "hf"))) == 0
    fitted, exported = (json.loads((out / f"version_{i}" / "summary.json").read_text())["metrics"] for i in (0, 1))
    assert exported["val_accuracy"] == fitted["val_accuracy"]
    assert exported["val_loss"] == pytest.approx(fitted["val_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.tsk", "cola"], "'tsk' is not accepted"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs"),
        (["--selection.method", "fisher"], "method"),
        (["--data.task", "sst3"], "Glue has no task 'sst3'; choose one of: cola"),
        (["--data.train_size", "2"], "training set of 2 examples is smaller than one batch of 8"),
        (["--data.data_dir", "/nowhere"], "no folder glue/sst2"),
        (["--model.tune", "worth"], "'worth' is no method of training and no term of this model"),
        (["--model.backbone", "/nowhere"], "cannot load the"),
        (["--model.dtype", "int7"], "dtype 'int7' is unknown; choose one of: float32"),
        (["--data.batch_size", "0"], "batch_size is 0"),
        (["--trainer.strategy", "nope"], "invalid strategy name"),
        (["--ckpt_path", "."], "no such checkpoint file"),
        (["--selection.terms", "[key]"], "every candidate (key) is inert"),
        (["--trainer.callbacks", "beft_lightning.BiasSelectionCallback"], "give its options as selection instead"),
        (["--selection.terms", "[]"], "name at least one candidate"),
        (["--selection.architecture.layer", "h"], "needs exactly one '{}'"),
    ],
)
def test_what_a_user_gets_wrong_is_one_message(
    options: list[str], message: str, argv: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("fit", *options)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "usage:" not in error
    assert "Traceback" not in error
    assert not list(out.rglob("*.ckpt"))
    assert not list(out.rglob("scores.*"))


def test_a_damaged_checkpoint_is_one_message(argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    assert main(argv("validate", "--ckpt_path", str(tmp_path / "bad.ckpt"))) == 2
    assert "bad.ckpt: not a readable checkpoint" in capsys.readouterr().err


def test_another_tasks_checkpoint_is_one_message(
    argv: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("fit")) == 0
    checkpoint = str(out / "version_0" / "checkpoints" / "last.ckpt")
    row = "the film\tthe plot\tneutral\n"
    for split in ("validation_matched", "validation_mismatched"):
        (tmp_path / f"{split}.tsv").write_text("sentence1\tsentence2\tgold_label\n" + row)
    options = ["--ckpt_path", checkpoint, "--data.task", "mnli", "--data.data_dir", str(tmp_path)]
    assert main(argv("validate", *options)) == 2
    assert "belongs to another model: 'model.classifier.weight' has shape (2, 32)" in capsys.readouterr().err


def test_the_name_last_goes_on_from_the_newest_run(argv: Any, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv("fit", "--trainer.max_epochs", "2")) == 0
    assert main(argv("fit")) == 0
    assert main(argv("fit", "--trainer.max_epochs", "2", "--ckpt_path", "last")) == 0
    whole, resumed = (json.loads((out / f"version_{i}" / "summary.json").read_text()) for i in (0, 2))
    assert whole["metrics"] == resumed["metrics"]
    assert main(argv("validate", "--ckpt_path=last")) == 0
    evaluated = json.loads((out / "version_3" / "summary.json").read_text())["metrics"]
    assert evaluated["val_loss"] == pytest.approx(whole["metrics"]["val_loss"], rel=1e-6)
    config = yaml.safe_load((out / "version_2" / "config.yaml").read_text())
    assert config["ckpt_path"] == str(out / "version_1" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("name", ["last", "hpc", "last-if-any"])
def test_a_name_of_no_checkpoint_is_an_error_before_anything_is_built(
    name: str, command: str, argv: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (name, command) == ("last-if-any", "fit"):
        assert main(argv("fit", "--ckpt_path", name)) == 0
        return
    assert main(argv(command, "--ckpt_path", name, "--model.backbone", "nowhere")) == 2
    assert f"--ckpt_path {name}: there is no " in capsys.readouterr().err
    assert not out.exists()


def test_a_diverged_fit_is_an_error_and_leaves_its_last_good_checkpoint(
    argv: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = [
        "--model.optimizer",
        "torch.optim.SGD",
        "--model.optimizer.lr",
        "1e30",
        "--trainer.gradient_clip_val",
        "null",
    ]
    assert main(argv("fit", *wild)) == 2
    error = capsys.readouterr().err
    assert re.search(r"the training loss is nan at step \d+ \(epoch 0, learning rate 1e\+30\)", error)
    assert "last good checkpoint is none" in error
    assert not list(out.rglob("*.ckpt"))
    with pytest.warns(UserWarning, match="nonfinite.stop is false"):
        assert main(argv("fit", *wild, "--nonfinite.stop", "false")) == 0
    text = (out / "version_1" / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary["metrics"]["val_loss"] is None
    checkpoint = str(out / "version_1" / "checkpoints" / "last.ckpt")
    for form in ("peft", "hf"):
        assert main(["export", "--checkpoint", checkpoint, "--format", form, "--out", str(out / form)]) == 2
        assert "not finite; the fit has diverged" in capsys.readouterr().err
        assert not (out / form).exists()


def test_a_signal_while_loading_ends_the_command_and_says_what_to_do_next(
    argv: Any,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)  # to caplog
    caplog.set_level(logging.INFO, "lightning.pytorch")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(data.Glue, "setup", lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))
    for command in (argv("fit"), argv("score", "--out", str(out / "scores"))):
        caplog.clear()
        assert main(command) == 143
        assert "SIGTERM: ended. Start the same command again." in caplog.text
    assert not (out / "scores").exists()
    assert main(argv("compare", "--tune", "value", "--out", str(out / "compared"))) == 143
    assert "Start the same command again. It keeps the runs that are finished" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_a_callback_of_ones_own_joins_ours(form: str, argv: Any, out: Path) -> None:
    callback = form.format("lightning.pytorch.callbacks.LearningRateMonitor")
    assert main(argv("fit", "--model.tune", "value", f"--trainer.callbacks={callback}")) == 0
    assert "lr-" in (out / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert (out / "version_0" / "summary.json").exists()
    assert not (out / "version_0" / "scores.json").exists()


def touching(path: Path) -> dict[str, Any]:
    """A configuration's way to run a program."""
    return {"class_path": "os.system", "init_args": {"command": f"touch {path}"}}


@pytest.mark.parametrize(
    "option",
    [
        *("model", "model.optimizer", "model.lr_scheduler", "data", "selection", "selection.architecture"),
        *("checkpoint", "nonfinite", "trainer", "trainer.callbacks", "trainer.logger", "trainer.strategy"),
        *("trainer.plugins", "trainer.profiler", "trainer.accelerator"),
    ],
)
def test_a_class_of_another_kind_is_an_error_and_is_not_called(
    option: str, argv: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in (touching(tmp_path / "ran"), [touching(tmp_path / "ran")]):
        config: Any = value
        for name in reversed(option.split(".")):
            config = {name: config}
        (tmp_path / "foreign.yaml").write_text(yaml.safe_dump(config))
        assert main(argv("fit", "--config", str(tmp_path / "foreign.yaml"), "--model.backbone", "nowhere")) == 2
        error = capsys.readouterr().err
        assert re.search("os.system|does not accept option|is a list|not found in namespace", error)
        assert not (tmp_path / "ran").exists()
        assert not out.exists()


@pytest.mark.parametrize("value", ["os.system", "torch.nn.Linear", "torch.optim.lr_scheduler.ConstantLR"])
def test_an_optimizer_is_a_class_of_torchs_kind(value: str, argv: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv("fit", "--model.optimizer", value, "--model.backbone", "nowhere")) == 2
    assert "optimizer" in capsys.readouterr().err


class SGD(torch.optim.SGD):
    """Other packages have optimizers of this name, too."""


def test_optimizers_schedulers_and_callbacks_of_libraries_are_made(argv: Any, out: Path) -> None:
    options = ["--model.tune", "value", "--model.optimizer", "SGD", "--model.optimizer.lr", "0.1"]
    options += ["--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.monitor", "val_loss"]
    options += ["--trainer.callbacks", "Timer", "--trainer.callbacks.duration", "00:01:00:00"]
    assert main(argv("fit", *options)) == 0
    saved = yaml.safe_load((out / "version_0" / "config.yaml").read_text())
    assert saved["model"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert saved["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (["--model.learning_rate", value], "model.learning_rate is")
            for value in (".nan", "-1", ".inf", "0", "1e38")
        ),
        *((["--selection.learning_rate", value], "selection.learning_rate is") for value in (".nan", "-1", "1e38")),
        *((["--data.eval_size", value], f"eval_size is {value}: it must be at least 1") for value in ("0", "-3")),
    ],
)
def test_a_number_that_cannot_be_is_one_message_before_anything_is_loaded(
    options: list[str], message: str, argv: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("fit", *options, "--model.backbone", "nowhere")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()
