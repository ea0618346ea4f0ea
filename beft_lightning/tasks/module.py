"""The LightningModule for language tasks."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from beft_lightning.bias import ReferenceAdam
from beft_lightning.data.task import Task
from beft_lightning.errors import BeftError
from beft_lightning.models import load_model
from beft_lightning.tasks import classification
from beft_lightning.tasks.metrics import task_metrics
from beft_lightning.tasks.tuning import AUTO, set_up_tuning


class LanguageTaskModule(LightningModule):
    """A pretrained language model learning a task.

    Args:
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER`` for a folder inside an installed package.
        task: The task's record; on the command line it comes from the data.
        tune: What is trained: ``auto`` (a BiasSelectionCallback decides), bias terms (``value``, ``query,value``,
            ``value.3``), ``all`` (every bias), or ``head``. The task head is always trained.
        random_init: Use the backbone's architecture with random weights.
        dtype: Precision of the frozen weights: ``float32``, ``bfloat16`` or ``float16``. Biases are always fp32.
        learning_rate: Learning rate of the default optimizer; by default the task's recommended one.
        optimizer: Another optimizer than the published update rule (Adam, epsilon 1e-6 on the uncorrected second
            moment, no weight decay).
        lr_scheduler: A learning-rate scheduler, stepped after each epoch; by default the rate is constant.
    """

    def __init__(
        self,
        backbone: str,
        task: Task,
        tune: str | list[str] = AUTO,
        random_init: bool = False,
        dtype: str = "float32",
        learning_rate: float | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if optimizer is not None and learning_rate is not None:
            raise BeftError("learning_rate belongs to the default optimizer: set the other optimizer's own lr instead.")
        self.backbone = backbone
        self.task = task
        self.tune = tune
        self.random_init = random_init
        self.dtype_name = dtype
        self.learning_rate = learning_rate if learning_rate is not None else task.learning_rate
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.model: PreTrainedModel | None = None
        prefixes = [split.removeprefix("validation").lstrip("_") for split in task.evaluation_splits]
        self.validation_metrics, self.test_metrics = (
            nn.ModuleList(task_metrics(task, "_".join(filter(None, [stage, prefix])) + "_") for prefix in prefixes)
            for stage in ("val", "test")
        )

    def setup(self, stage: str) -> None:
        """Refuse a precision in which half-precision weights and fp32 biases cannot meet."""
        if self.dtype_name != "float32" and str(self.trainer.precision).startswith("32"):
            raise BeftError(
                f"dtype {self.dtype_name!r} with trainer precision {self.trainer.precision!r}: the trained parameters "
                f"stay fp32, so set trainer.precision to '{'bf16' if self.dtype_name == 'bfloat16' else '16'}-mixed'."
            )

    def configure_model(self) -> None:
        """Load the backbone, and freeze what ``tune`` says."""
        if self.model is not None:
            return
        self.model = load_model(
            AutoModelForSequenceClassification,
            self.backbone,
            random_init=self.random_init,
            dtype=self.dtype_name,
            num_labels=self.task.outputs,
        )
        if self.tune != AUTO:
            set_up_tuning(self.model, self.tune)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits of a batch, shape ``(batch, outputs)``."""
        assert self.model is not None
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "id")}
        logits: Tensor = self.model(**inputs).logits
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The batch's loss."""
        loss = classification.loss(self.task, self(batch), batch["labels"])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the metrics of the batch's split."""
        self._evaluate(batch, "val", self.validation_metrics[dataloader_idx])

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the metrics of the batch's split."""
        self._evaluate(batch, "test", self.test_metrics[dataloader_idx])

    def _evaluate(self, batch: dict[str, Tensor], stage: str, metrics: nn.Module) -> None:
        assert isinstance(metrics, MetricCollection)
        logits = self(batch)
        metrics.update(classification.predictions(self.task, logits), batch["labels"])
        self.log_dict(dict(metrics.items()), prog_bar=True, add_dataloader_idx=False)
        loss = classification.loss(self.task, logits, batch["labels"])
        self.log(f"{metrics.prefix}loss", loss, batch_size=len(logits), add_dataloader_idx=False)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Predictions of a batch: ``rows``, each with the example's ``id`` and the ``prediction`` (label or score)."""
        values = classification.predictions(self.task, self(batch)).tolist()
        names: Sequence[Any] = [self.task.labels[value] for value in values] if self.task.labels else values
        return {"rows": [{"id": i, "prediction": p} for i, p in zip(batch["id"].tolist(), names, strict=True)]}

    def configure_optimizers(self) -> Any:
        """The optimizer over what is trainable, and the scheduler if there is one."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.tune == AUTO and len(parameters) == len(list(self.parameters())):
            raise BeftError(
                "tune is 'auto', but no bias term has been selected: add BiasSelectionCallback() to the trainer's "
                "callbacks, or say what to train, for example tune='value'."
            )
        optimizer = self.optimizer(parameters) if self.optimizer else ReferenceAdam(parameters, lr=self.learning_rate)
        if self.lr_scheduler is None:
            return optimizer
        return [optimizer], [self.lr_scheduler(optimizer)]
