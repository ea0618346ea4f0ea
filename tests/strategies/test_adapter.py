"""Actions before a strategy's own methods, and a strategy after a run."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.callbacks import RunSummary
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from beft_lightning.strategies.adaptation import adapt
from beft_lightning.strategies.adapter import AdapterStrategy
from tests.strategies.cpu_strategies import CPUFSDPStrategy
from tests.tiny import ForeignModule, save_backbone, token_batches


class Notes(Callback):
    """Notes the order of events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        strategy = adapt(trainer.strategy)
        strategy.before_optimizers(lambda: self.note("optimizers", pl_module))
        strategy.before_sharding(lambda: self.note("sharding", pl_module))
        strategy.before_restore(lambda: self.note("restore", pl_module))

    def note(self, name: str, module: Any) -> None:
        wrapped = any("FSDP" in type(child).__name__ or "Fully" in type(child).__name__ for child in module.modules())
        self.events.append(f"{name}, wrapped" if wrapped else name)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.events.append("checkpoint")

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.events.append("fit")


def selection() -> BiasSelectionCallback:
    return BiasSelectionCallback("fixed", ["value"], head="none")


class Configured(ForeignModule):
    """FSDP2 asks modules to have this hook."""

    def configure_model(self) -> None:
        pass


def whole_mesh() -> ModelParallelStrategy:
    return ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)


@pytest.mark.parametrize(
    ("make", "selects"),
    [
        (lambda: SingleDeviceStrategy("cpu"), "optimizers"),
        (DDPStrategy, "optimizers"),
        (CPUFSDPStrategy, "optimizers, wrapped"),
        (whole_mesh, "optimizers, wrapped"),
    ],
)
def test_actions_run_once_and_in_order(
    make: Callable[[], Any], selects: str, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Whatever the order in which they were given."""
    path = tmp_path / "run.ckpt"
    trainer = make_trainer(callbacks=[selection(), AdapterCheckpoint()], limit_train_batches=1)
    trainer.fit(Configured(), token_batches())
    trainer.save_checkpoint(path)
    for checkpoint, restored in ((None, []), (path, ["checkpoint"])):
        notes = Notes()
        callbacks = [notes, selection(), AdapterCheckpoint()]
        trainer = make_trainer(strategy=make(), callbacks=callbacks, limit_train_batches=1)
        trainer.fit(Configured(), token_batches(), ckpt_path=checkpoint, weights_only=True)
        assert notes.events == ["restore", *restored, "sharding", selects, "fit"]


class Breaks(Callback):
    """Fails before anything is set up."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        raise RuntimeError("too early")


@pytest.mark.parametrize("make", [lambda: SingleDeviceStrategy("cpu"), CPUFSDPStrategy])
def test_a_failed_run_leaves_no_action_behind(make: Callable[[], Any], make_trainer: Callable[..., Trainer]) -> None:
    failed, notes = Notes(), Notes()
    trainer = make_trainer(strategy=make(), callbacks=[failed, Breaks()], limit_train_batches=1)
    with pytest.raises(RuntimeError, match="too early"):
        trainer.fit(ForeignModule(), token_batches())
    trainer.callbacks[:] = [notes, selection()]  # type: ignore[attr-defined]
    trainer.fit(ForeignModule(), token_batches())
    assert len(notes.events) == 4
    assert failed.events == []


@pytest.fixture
def gpt2(tmp_path: Path) -> str:
    return save_backbone(tmp_path / "gpt2", "gpt2")


@pytest.mark.parametrize("savers", [[AdapterCheckpoint()], []])
@pytest.mark.parametrize("make", [lambda: SingleDeviceStrategy("cpu"), DDPStrategy])
def test_after_a_fit_the_strategy_and_the_module_can_be_copied_and_pickled(
    make: Callable[[], Any], savers: list[Callback], gpt2: str, sst2_dir: str, make_trainer: Callable[..., Trainer]
) -> None:
    """With the parts of a fused bias, and a learning rate that falls."""
    data = Glue(gpt2, task="sst2", data_dir=sst2_dir, batch_size=8)
    module = LanguageTaskModule(gpt2, data.task, schedule="linear")
    callbacks = [BiasSelectionCallback(batches=2), *savers, RunSummary()]
    trainer = make_trainer(strategy=make(), callbacks=callbacks, limit_train_batches=2)
    trainer.fit(module, datamodule=data)
    # With AdapterCheckpoint it stays adapted, for trainer.save_checkpoint after the fit.
    assert isinstance(trainer.strategy, AdapterStrategy if savers else type(make()))
    assert (type(trainer.strategy) is type(make())) is not bool(savers)
    state = module.state_dict()
    assert any(name.endswith("parametrizations.bias.original2") for name in state)
    twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for twin in [copy.deepcopy(trainer.strategy), pickle.loads(pickle.dumps(trainer.strategy))]:
        assert type(twin) is type(trainer.strategy)
        assert twin.lightning_module is not None
        twins.append(twin.lightning_module)
        trained = [p for p in twin.lightning_module.parameters() if p.requires_grad]
        assert set(twin.optimizers[0].param_groups[0]["params"]) == set(trained)
    for twin in twins:
        torch.testing.assert_close(dict(twin.state_dict()), dict(state), rtol=0, atol=0)
        assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in module.parameters()]


def test_an_unknown_strategy_is_refused() -> None:
    strategy: Any = object()
    with pytest.raises(BeftError, match="object cannot train a choice of biases; use one of: DeepSpeedStrategy, FSDP"):
        adapt(strategy)


@pytest.mark.parametrize("make", [CPUFSDPStrategy, whole_mesh])
def test_without_a_selection_trained_values_stay_fp32_over_half_precision_weights(
    make: Callable[[], Any], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def half() -> Configured:
        module = Configured()
        module.net.bfloat16()
        return module

    path = tmp_path / "run.ckpt"
    options = {"precision": "bf16-mixed", "limit_train_batches": 2}
    trainer = make_trainer(callbacks=[selection(), AdapterCheckpoint()], **options)
    trainer.fit(half(), token_batches())
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["state_dict"]
    module = half()
    trainer = make_trainer(strategy=make(), callbacks=[AdapterCheckpoint()], **options)
    trainer.fit(module, token_batches(), ckpt_path=path, weights_only=True)  # nothing is left to do
    values = trainer.strategy.lightning_module_state_dict()
    for name in saved:
        assert values[name].dtype == saved[name].dtype
        assert torch.equal(values[name], saved[name])
