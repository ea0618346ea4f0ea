"""A fit that is told to end saves a whole step first; see tests/test_kill_loop.py for processes of their own."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.callbacks import Interruption, LastCheckpoint
from beft_lightning.data import Glue
from beft_lightning.signals import Interrupted
from tests.kill_results import different
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


class Send(Callback):
    """Sends this process a signal in a hook, the ``count``-th time that it is called."""

    def __init__(self, hook: str, count: int = 1, number: int = signal.SIGTERM) -> None:
        self.left, self.number = count, number
        setattr(self, hook, self._called)

    def _called(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


class Counts(Callback):
    """Counts validations and ends of epochs in a fit and those that resume it."""

    validations = epochs = 0

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.validations += not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.epochs += 1


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Every test leaves the handlers as they were."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fit(backbone: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    """Fit with dropout, six batches an epoch; returns the trainer and what ``last.ckpt`` holds."""

    def run(
        *callbacks: Callback, folder: str = "a", resume: Path | None = None, workers: int = 0, **options: Any
    ) -> Any:
        seed_everything(3, verbose=False)
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0, num_workers=workers)
        saving = LastCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        trainer = make_trainer(
            callbacks=[*callbacks, saving, AdapterCheckpoint(), Interruption()],
            enable_checkpointing=True,
            **{"max_epochs": 3, **options},
        )
        trainer.fit(LanguageTaskModule(backbone, data.task, tune="value", learning_rate=1e-2), data, ckpt_path=resume)
        return trainer, torch.load(tmp_path / folder / "last.ckpt", weights_only=True)

    return run


@pytest.mark.parametrize(
    ("send", "step"),
    [
        (Send("on_train_batch_start", 9), 9),
        (Send("on_before_zero_grad", 9), 9),
        (Send("on_train_batch_end", 6), 6),  # the last of an epoch
        (Send("on_validation_end", 2), 12),
        (Send("on_train_epoch_end", 1), 6),
        (Send("on_before_backward", 1), 1),
        (Send("on_train_batch_start", 9, signal.SIGINT), 9),
    ],
)
def test_a_resumed_fit_equals_the_uninterrupted_one(send: Send, step: int, fit: Any, tmp_path: Path) -> None:
    _, whole = fit(folder="whole")
    with pytest.raises(Interrupted) as raised:
        fit(send, num_sanity_val_steps=0)
    path = tmp_path / "a" / "last.ckpt"
    assert (raised.value.code, raised.value.saved) == (128 + send.number, str(path))
    assert torch.load(path, weights_only=True)["global_step"] == step
    _, resumed = fit(folder="b", resume=path)
    assert not different(resumed, whole)


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({"workers": 2}, (3, 6)),
        ({"accumulate_grad_batches": 4}, (3, 6)),
        ({"val_check_interval": 3}, (3, 6)),
        ({"limit_train_batches": 4}, (3, 6)),
        ({"limit_val_batches": 0}, (3, 6)),
        ({"check_val_every_n_epoch": None, "val_check_interval": 4}, (3, 8)),
    ],
    ids=str,
)
def test_so_does_one_with_other_options(
    options: dict[str, Any], places: tuple[int, int], fit: Any, tmp_path: Path
) -> None:
    """Also where a validation follows the batch, which Lightning would leave out when it resumes there."""
    expected = Counts()
    _, whole = fit(expected, folder="whole", **options)
    for place in places:
        counts = Counts()
        with pytest.raises(Interrupted):
            fit(counts, Send("on_train_batch_start", place), folder=f"{place}", **options)
        _, resumed = fit(counts, folder=f"{place}b", resume=tmp_path / f"{place}" / "last.ckpt", **options)
        assert not different(resumed, whole)
        assert (counts.validations, counts.epochs) == (expected.validations, expected.epochs)


def test_the_state_of_other_callbacks_is_that_of_the_epoch(fit: Any, tmp_path: Path) -> None:
    def stopping() -> EarlyStopping:
        return EarlyStopping("val_loss", patience=1, mode="max")  # it only falls

    whole, _ = fit(stopping(), folder="whole")
    assert whole.current_epoch == 2
    with pytest.raises(Interrupted):
        fit(stopping(), Send("on_train_epoch_end"))
    resumed, _ = fit(stopping(), folder="b", resume=tmp_path / "a" / "last.ckpt")
    assert resumed.current_epoch == 2


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start"])
def test_before_the_first_step_it_ends_at_once(hook: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(callbacks=[Interruption(), Send(hook), ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    with pytest.raises(Interrupted) as raised:
        trainer.fit(ForeignModule(), token_batches())
    assert raised.value.saved is None
    assert not list(tmp_path.rglob("*.ckpt"))


def test_from_the_start_of_the_sanity_check_on_it_ends_at_once(
    backbone: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    # Lightning has just installed its own handlers, and only Interruption's hook comes before.
    trainer = make_trainer(callbacks=[Interruption(), Send("on_sanity_check_start")])
    with pytest.raises(Interrupted):
        trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), data)


def test_after_the_last_step_it_ends_at_once_and_names_what_is_saved(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, save_last=True)
    trainer = make_trainer(callbacks=[saving, Interruption(), Send("on_fit_end")], enable_checkpointing=True)
    with pytest.raises(Interrupted) as raised:
        trainer.fit(ForeignModule(), token_batches())
    assert trainer.global_step == 8
    assert raised.value.saved == str(tmp_path / "last.ckpt")


def test_a_resumed_fit_that_has_saved_nothing_names_what_it_went_on_from(fit: Any, tmp_path: Path) -> None:
    fit(max_epochs=1)
    path = tmp_path / "a" / "last.ckpt"
    with pytest.raises(Interrupted) as raised:
        fit(Send("on_fit_start"), folder="b", resume=path)
    assert raised.value.saved == str(path)


def test_an_epoch_that_was_not_saved_is_no_place_to_end(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, every_n_epochs=2)
    callbacks = [saving, Interruption(), Send("on_train_epoch_end")]
    trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=3)
    with pytest.raises(Interrupted) as raised:
        trainer.fit(ForeignModule(), token_batches())
    assert trainer.global_step == 9
    assert raised.value.saved == str(tmp_path / "last.ckpt")


class ForksAndSends(Callback):
    """Sends two signals to a process that it has forked, as a DataLoader forks its workers."""

    code = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx or (child := os.fork()):
            self.code = self.code or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getppid(), 0)  # still here
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(1)


def test_a_forked_process_outlives_the_first_signal_which_goes_to_all(make_trainer: MakeTrainer) -> None:
    forks = ForksAndSends()
    trainer = make_trainer(callbacks=[Interruption(), forks], limit_train_batches=1)
    trainer.fit(ForeignModule(), token_batches())
    assert forks.code == -signal.SIGTERM


def test_an_evaluation_ends_at_once_and_says_so(backbone: str, sst2_dir: str, make_trainer: MakeTrainer) -> None:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, eval_batch_size=4, seed=0)
    send = Send("on_test_batch_start", 2)
    trainer = make_trainer(callbacks=[Interruption(), send])
    with pytest.raises(Interrupted) as raised:
        trainer.test(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data)
    assert (send.left, raised.value.saved, raised.value.reported) == (0, None, True)


def test_a_second_control_c_ends_at_once(make_trainer: MakeTrainer) -> None:
    callbacks = [Send("on_train_batch_start", 2, signal.SIGINT), Send("on_before_backward", 2, signal.SIGINT)]
    trainer = make_trainer(callbacks=[Interruption(), *callbacks])
    with pytest.raises(Interrupted):
        trainer.fit(ForeignModule(), token_batches())
    assert trainer.global_step == 1


def test_without_a_modelcheckpoint_it_ends_after_the_batch(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(callbacks=[Send("on_train_batch_start", 2), Interruption()])
    with pytest.raises(Interrupted):
        trainer.fit(ForeignModule(), token_batches())
    assert trainer.global_step == 2


def test_a_signal_in_the_last_validation_lets_the_fit_finish(fit: Any) -> None:
    trainer, saved = fit(Send("on_validation_end", 3), num_sanity_val_steps=0)
    assert saved["global_step"] == trainer.global_step == 18


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_put_back(fails: bool, make_trainer: MakeTrainer) -> None:
    got: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: got.append(number))
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            if fails:
                raise RuntimeError

    for _ in range(2):
        trainer = make_trainer(callbacks=[Fails(), Interruption()])
        if fails:
            with pytest.raises(RuntimeError):
                trainer.fit(ForeignModule(), token_batches())
        else:
            trainer.fit(ForeignModule(), token_batches())
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert got == [signal.SIGTERM, signal.SIGINT]


class Slurm(SLURMEnvironment):
    """A job of one process."""

    creates_processes_externally = True

    def world_size(self) -> int:
        return 1

    def global_rank(self) -> int:
        return 0

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return 0

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        pass


@pytest.fixture
def requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """An ``scontrol`` that notes what it is called with; returns its notes."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(tmp_path / 'notes')!r}, 'a').write(' '.join(sys.argv[1:]))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return lambda: (tmp_path / "notes").read_text() if (tmp_path / "notes").exists() else ""


@pytest.mark.parametrize(
    ("number", "auto", "notes"),
    [
        (signal.SIGUSR1, True, "requeue 17"),
        (signal.SIGUSR1, False, ""),
        (signal.SIGUSR2, True, ""),
        (signal.SIGTERM, True, ""),
    ],
)
def test_slurms_signals(
    number: signal.Signals, auto: bool, notes: str, requeued: Callable[[], str], fit: Any, tmp_path: Path
) -> None:
    _, whole = fit(folder="whole")
    with pytest.raises(Interrupted) as raised:
        fit(Send("on_before_backward", 9, number), plugins=[Slurm(auto_requeue=auto)])
    assert raised.value.code == 128 + number
    assert requeued() == notes
    assert (tmp_path / "hpc_ckpt_1.ckpt").exists() == bool(notes)
    path = tmp_path / ("hpc_ckpt_1.ckpt" if notes else "a/last.ckpt")
    _, resumed = fit(folder="b", resume=path)
    assert not different(resumed, whole)


def test_a_job_is_requeued_before_it_has_begun(requeued: Callable[[], str], make_trainer: MakeTrainer) -> None:
    callbacks = [Interruption(), Send("on_fit_start", 1, signal.SIGUSR1)]
    trainer = make_trainer(callbacks=callbacks, plugins=[Slurm()])
    with pytest.raises(Interrupted):
        trainer.fit(ForeignModule(), token_batches())
    assert requeued() == "requeue 17"
