"""What is done in isolation is undone, also when it fails. (A whole scoring pass is tested in test_scoring_pass.py.)"""

import copy
import random
import warnings
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score

from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.data import Glue
from beft_lightning.errors import ScoringError
from beft_lightning.scoring.isolation import FrozenValues, eval_mode, leave_no_trace
from beft_lightning.tasks import LanguageTaskModule
from tests.tiny import ForeignModule, token_batches


def test_a_failure_inside_is_undone_too(make_trainer: Callable[..., Trainer]) -> None:
    module = ForeignModule()
    weight = module.extra.get_parameter("weight")
    trainer = make_trainer()
    module.trainer = trainer
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def fail_inside() -> None:
        with leave_no_trace(trainer, module, [weight]), warnings.catch_warnings(record=True) as caught:
            assert [p for p in module.parameters() if p.requires_grad] == [weight]
            weight.data.add_(1.0)
            module.running.add_(1)
            module.log("ignored", 1.0)
            module.log_dict({"ignored": 1.0})
            assert caught == []
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_inside()
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not trainer.barebones


def test_evaluation_mode_gives_each_module_its_own_mode_back() -> None:
    module = ForeignModule()
    module.extra.eval()
    with eval_mode(module):
        assert not any(child.training for child in module.modules())
    assert [name for name, child in module.named_modules() if not child.training] == ["extra"]


class Odd(ForeignModule):
    """A module with state of its own, which its loss or its report depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.report: Any = None
        self.start()

    def start(self) -> None:
        """Make the state."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * float(self.step(batch))

    def step(self, batch: list[Tensor]) -> Any:
        """Change the state; return a factor of the loss."""
        raise NotImplementedError


class Outputs(Odd):
    """The pattern of Lightning's documentation."""

    def start(self) -> None:
        self.training_step_outputs: list[Any] = []

    def step(self, batch: list[Tensor]) -> Any:
        self.training_step_outputs.append(batch[1].float().mean())
        return 1

    def on_train_epoch_end(self) -> None:
        epoch = len(self.training_step_outputs), torch.stack(self.training_step_outputs).mean().item()
        self.report = [*(self.report or []), epoch]
        self.training_step_outputs.clear()


class Warmup(Odd):
    steps = 0

    def step(self, batch: list[Tensor]) -> Any:
        self.steps += 1
        return min(1.0, self.steps / 10)


class RunningMean(Odd):
    def start(self) -> None:
        self.mean = 1.0
        self.tensor = torch.ones(3)
        self.array = np.ones(3)

    def step(self, batch: list[Tensor]) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * batch[1].sum().item()
        self.tensor.mul_(0.9)
        self.array *= 0.9
        return 1 + self.mean + self.tensor.sum() + self.array.sum()


class Collections(Odd):
    def start(self) -> None:
        self.state: dict[str, Any] = {"seen": Counter(), "recent": deque(maxlen=4), "sizes": {"ids": [0]}}

    def step(self, batch: list[Tensor]) -> Any:
        self.state["seen"].update(batch[1].tolist())
        self.state["recent"].append(batch[1].sum().item())
        self.state["sizes"]["ids"][0] += 1
        return self.state["seen"][0] + sum(self.state["recent"]) + self.state["sizes"]["ids"][0]


class AverageMeter:
    """As in many training scripts."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, value: float) -> float:
        self.total += value
        self.count += 1
        return self.total / self.count


class Meters(Odd):
    def start(self) -> None:
        self.meters = {"labels": AverageMeter()}

    def step(self, batch: list[Tensor]) -> Any:
        return 1 + self.meters["labels"].update(batch[1].sum().item())


class CountingLayer(nn.Module):
    """Counts its calls, and drops with a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.generator = torch.Generator().manual_seed(2)

    def forward(self) -> Tensor:
        self.calls += 1
        return self.calls + torch.rand((), generator=self.generator)


class Submodule(Odd):
    def start(self) -> None:
        self.layer = nn.ModuleList([CountingLayer()])

    def step(self, batch: list[Tensor]) -> Any:
        return self.layer[0]()


class Generators(Odd):
    def start(self) -> None:
        self.random, self.numpy = random.Random(1), np.random.default_rng(1)
        self.state = np.random.RandomState(1)

    def step(self, batch: list[Tensor]) -> Any:
        return self.random.random() + self.numpy.random() + self.state.rand()


class Lazy(Odd):
    """Makes a buffer and an attribute in its first step, and sets a submodule to evaluation for good."""

    def step(self, batch: list[Tensor]) -> Any:
        if not hasattr(self, "first"):
            self.first = batch[1].sum().item() + 1
            self.register_buffer("late", batch[0].float().mean())
            self.net.get_submodule("bert.embeddings").eval()
        self.late: Tensor
        return self.first + self.late


class Metrics(Odd):
    """Also those that are not registered."""

    def start(self) -> None:
        self.plain = {"mean": MeanMetric()}
        self.together = MetricCollection([BinaryAccuracy(), BinaryF1Score()])

    def step(self, batch: list[Tensor]) -> Any:
        self.plain["mean"].update(batch[1].float())
        scores = self.together(batch[1], batch[0][:, 0] % 2)
        return 1 + self.plain["mean"].compute() + sum(scores.values())


@pytest.mark.parametrize(
    "kind", [Outputs, Warmup, RunningMean, Collections, Meters, Submodule, Generators, Lazy, Metrics]
)
def test_a_fit_goes_as_if_it_had_not_been_scored(kind: type[Odd], make_trainer: Callable[..., Trainer]) -> None:
    """Losses, reports and weights of a scored and a fixed fit are equal bit by bit."""

    def fit(callback: BiasSelectionCallback) -> Odd:
        torch.manual_seed(1)
        module = kind()
        make_trainer(callbacks=[callback], max_epochs=2).fit(module, token_batches())
        return module

    callback = BiasSelectionCallback(batches=9, patience=0)
    scored = fit(callback)
    assert callback.selected is not None
    fixed = fit(BiasSelectionCallback("fixed", callback.selected))
    assert scored.losses == fixed.losses
    assert scored.report == fixed.report
    torch.testing.assert_close(scored.state_dict(), fixed.state_dict(), rtol=0, atol=0)


class Teacher(ForeignModule):
    """Moves an average of its weights through ``.data``."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        teacher = copy.deepcopy(self.net).requires_grad_(False)
        self.teacher: Any = [teacher] if hidden else teacher

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        teacher = self.teacher[0] if isinstance(self.teacher, list) else self.teacher
        for average, parameter in zip(teacher.parameters(), self.net.parameters(), strict=True):
            average.data = average.data * 0.9 + parameter.data * 0.1
        return super().training_step(batch, batch_idx)


class WithAverage(ForeignModule):
    """Keeps torch's own average."""

    def __init__(self) -> None:
        super().__init__()
        self.average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.9)).requires_grad_(False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.average.update_parameters(self.net)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    "make", [lambda: Teacher(hidden=False), lambda: Teacher(hidden=True), WithAverage], ids=["data", "hidden", "torch"]
)
def test_an_average_of_weights_is_an_error(make: Any, make_trainer: Callable[..., Trainer]) -> None:
    module = make()
    with pytest.raises(ScoringError, match="frozen parameters in place .an average of weights.*use approach 'fixed'"):
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(module, token_batches())


def test_a_hidden_module_that_does_not_change_is_scored(make_trainer: Callable[..., Trainer]) -> None:
    class Distilled(ForeignModule):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = [nn.Linear(2, 2)]

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) + self.teacher[0](torch.ones(2)).sum()

    module = Distilled()
    make_trainer(callbacks=[BiasSelectionCallback()], max_epochs=0).fit(module, token_batches())
    assert module.teacher[0].weight.grad is None
    assert module.teacher[0].weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (3,), (1000,), (70, 30), (5, 40, 3)])
def test_frozen_values_of_any_kind_are_watched(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.ones(shape, dtype=dtype)
    weight = nn.Parameter(values.t() if len(shape) == 2 else values, requires_grad=False)
    watched = FrozenValues([weight, nn.Parameter(torch.zeros(0)), nn.Parameter(torch.zeros(3, device="meta"))])
    watched.check()
    weight.data = torch.zeros_like(weight)
    with pytest.raises(ScoringError, match="changes 1 frozen"):
        watched.check()


def test_frozen_values_that_are_not_numbers_are_no_change() -> None:
    FrozenValues([nn.Parameter(torch.full((3,), float("nan")), requires_grad=False)]).check()


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_quantized_weights_are_as_before(
    dtype: str, backbone: str, sst2_dir: str, make_trainer: Callable[..., Trainer]
) -> None:
    """Layers of bitsandbytes take state from their parameters in their first step, which must not be undone by half."""
    pytest.importorskip("bitsandbytes", reason="quantized weights need bitsandbytes")
    trained = []
    for callback in (BiasSelectionCallback(batches=4, patience=0), BiasSelectionCallback("fixed", ["value"])):
        torch.manual_seed(0)
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
        module = LanguageTaskModule(backbone, data.task, tune="value", dtype=dtype)
        make_trainer(callbacks=[callback]).fit(module, data)
        assert callback.selected == ["value"]
        trained.append({name: p.detach() for name, p in module.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*trained, rtol=0, atol=0)
