"""The LightningModule for tasks of texts, images and sounds."""

from functools import partial
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DistributedSampler
from transformers import PreTrainedModel

from beft_lightning.bias.found import take_offered
from beft_lightning.checkpoint import MODEL_KEY
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.learning_rate import fit_rate
from beft_lightning.models import check_dtype, check_length, checkpoint_activations, load_model, load_tokenizer
from beft_lightning.scoring.reference_adam import ReferenceAdam, check_learning_rate
from beft_lightning.strategies.adaptation import adapt, release
from beft_lightning.strategies.collectives import check_same
from beft_lightning.strategies.compatibility import check_model_options, check_precision
from beft_lightning.tasks.metrics import TaskMetrics, metric_prefix
from beft_lightning.tasks.monitoring import check_monitors
from beft_lightning.tasks.objectives import Objective, make_objective
from beft_lightning.tasks.schedules import each_epoch, linear_decay, step_on_plateau
from beft_lightning.tuning import AUTO, TuningMethod, set_up_tuning, tuning_method


class LanguageTaskModule(LightningModule):
    """A pretrained model learning a task of texts, images or sounds; the name is from its beginnings.

    Args:
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER`` for a folder inside an installed package.
        task: The task's record; on the command line it comes from the data.
        gguf_file: Name of the GGUF file in the backbone's folder that holds the weights.
        tune: What is trained: ``auto`` (a BiasSelectionCallback decides), bias terms (``value``, ``query,value``,
            ``value.3``), ``all`` (every bias), ``head``, ``full``, ``random_mask``, ``random_rows``,
            ``low_rank_bias``, ``vera_bias``, ``scalar_bias``, ``lora``, ``dora``, ``vera``, ``ia3`` or ``prefix``. The
            task head is always trained.
        tune_options: Options of that method of training, such as ``{"rank": 4}``; ``fit --help`` lists them.
        random_init: Use the backbone's architecture with random weights.
        dtype: Precision of the frozen weights: ``float32``, ``bfloat16``, ``float16``, or the linear layers' in
            ``int8`` or ``nf4``. Biases are always fp32.
        learning_rate: Learning rate of the default optimizer; by default the task's recommended one.
        optimizer: Instead of the published rule: Adam, epsilon 1e-6 on the uncorrected second moment, no weight decay.
        lr_scheduler: A learning-rate scheduler, stepped after each epoch. One that looks at a metric is
            ``lightning.pytorch.cli.ReduceLROnPlateau`` with ``monitor``.
        schedule: Without an ``lr_scheduler``: ``constant``, or ``linear``: the rate falls to zero with each step.
        activation_checkpointing: Keep only each layer's input for the backward pass and compute the rest again: less
            memory, about one forward pass more for each step, the same results. Fisher scores do without: a model in
            evaluation mode keeps everything.
        attn_implementation: Of attention, ``sdpa``, ``eager``, ``flash_attention_2``, ...: by default transformers'.
    """

    def __init__(
        self,
        backbone: str,
        task: TaskRecord,
        gguf_file: str | None = None,
        tune: str | list[str] = AUTO,
        tune_options: dict[str, Any] | None = None,
        random_init: bool = False,
        dtype: str = "float32",
        learning_rate: float | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        schedule: Literal["constant", "linear"] = "constant",
        activation_checkpointing: bool = False,
        attn_implementation: str | None = None,
    ) -> None:
        super().__init__()
        check_dtype(dtype)
        #: The method of training; None if a BiasSelectionCallback decides. It may be set until the model is loaded.
        self.method: TuningMethod | None = tuning_method(tune, tune_options)
        #: The ``tune_options`` as they were asked for, defaults included.
        self.asked_options = dict(tune_options or {})
        if activation_checkpointing and self.method is not None and self.method.needs_cache:
            raise BeftError(f"tune {self.tune!r} is in a cache, which activation_checkpointing drops: leave out one.")
        if optimizer is not None and learning_rate is not None:
            raise BeftError("learning_rate belongs to the default optimizer: set the other optimizer's own lr instead.")
        self.backbone = backbone
        self.gguf_file = gguf_file
        self.task = task
        self.random_init = random_init
        self.dtype_name = dtype
        self.learning_rate_given = learning_rate is not None  # A race keeps it then.
        self.learning_rate = task.learning_rate if learning_rate is None else learning_rate
        check_learning_rate(self.learning_rate, "model.learning_rate")
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.schedule = schedule
        self.activation_checkpointing = activation_checkpointing
        self.attn_implementation = attn_implementation
        self.model: PreTrainedModel | None = None
        self.objective: Objective[Any] | None = None
        self._method_waits = False
        self.validation_metrics, self.test_metrics = (
            nn.ModuleList(TaskMetrics(task, metric_prefix(stage, split)) for split in splits)
            for stage, splits in (("val", task.validation_splits), ("test", task.evaluation_splits))
        )

    @property
    def tune(self) -> str:
        """The method of training as text, ``auto`` if a BiasSelectionCallback decides."""
        return AUTO if self.method is None else self.method.tune

    @property
    def tune_options(self) -> dict[str, Any]:
        """The options of the method that differ from their defaults."""
        return {} if self.method is None else self.method.options()

    def setup(self, stage: str) -> None:
        """Prepare the strategy; check that precision, strategy and options fit, and are the same in all processes."""
        strategy = adapt(self.trainer.strategy)
        strategy.use_all_processes()
        # As soon as the model exists, and a checkpoint says where its terms are: scoring comes next.
        self._method_waits |= self.model is None and self.method is not None and self.method.looks_for_terms
        if self._method_waits:
            strategy.before_restore(self._set_up_method)
        strategy.before_restore(self._check_length)
        if stage == "fit":
            check_precision(self.trainer)
            check_monitors(self.trainer)
        names = ("tune", "tune_options", "dtype_name", "random_init", "learning_rate", "schedule")
        data = getattr(self.trainer, "datamodule", None)
        options = {name: getattr(self, name) for name in (*names, "activation_checkpointing")}
        check_same(options | getattr(data, "identity", {}))
        check_model_options(self.trainer, self.dtype_name, self.activation_checkpointing)

    def teardown(self, stage: str) -> None:
        """Give the trainer its strategy back."""
        release(self.trainer.strategy)

    def configure_model(self) -> None:
        """Load the backbone under the task's head, and freeze what ``tune`` says."""
        if self.model is not None:
            return
        self.objective = make_objective(self.task, partial(load_tokenizer, self.backbone, self.gguf_file))
        self.model = load_model(
            self.objective.auto_class,
            self.backbone,
            gguf_file=self.gguf_file,
            random_init=self.random_init,
            dtype=self.dtype_name,
            attention=self.attn_implementation,
            **self.objective.config,
        )
        self.objective.check_model(self.model)
        self.objective.start_head(self.model)
        if self.activation_checkpointing:
            checkpoint_activations(self.model)
        take_offered(self)
        if not self._method_waits:
            self._set_up_method()

    def _set_up_method(self) -> None:
        self._method_waits = False
        if self.method is not None:
            assert self.model is not None
            set_up_tuning(self.model, self.method)

    def forward(self, batch: dict[str, Any] | None = None, **inputs: Any) -> Any:
        """Return the output of the model itself, such as its ``logits``.

        Example::

            module(next(iter(data.test_dataloader()[0])))
            module(**tokenizer(["A fine film"], return_tensors="pt"))

        Args:
            batch: A batch of the DataModule. Its labels are not passed on, so that the output has no loss.
            inputs: Instead of a batch, arguments of the model.
        """
        if self.model is None:
            self.configure_model()
            self.train(self.training)
        assert self.objective is not None
        assert self.model is not None
        return self.model(**(inputs if batch is None else self.objective.inputs(self.model, batch)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store how the model is made, in plain types only."""
        assert self.objective is not None
        checkpoint[MODEL_KEY] = {
            "auto_class": self.objective.auto_class.__name__,
            "backbone": self.backbone,
            "gguf_file": self.gguf_file,
            "random_init": self.random_init,
            "dtype": self.dtype_name,
            "tune": self.tune,
            "tune_options": self.tune_options,
            "learning_rate": fit_rate(self, self.learning_rate) if self.optimizer is None else None,
            "num_labels": self.objective.config.get("num_labels"),
            "problem_type": self.objective.config.get("problem_type"),
            "labels": list(self.objective.output_names),
            "task": self.task.to_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that there is a Trainer, which puts the trained values into the model.

        Raises:
            CheckpointError: In ``load_from_checkpoint``, which would leave the pretrained model.
        """
        try:
            _ = self.trainer
        except RuntimeError:
            raise CheckpointError(
                "load_from_checkpoint expects all weights of a model, and a checkpoint holds the trained values alone: "
                "make the module and call beft_lightning.load_adapter(module, path), or give a Trainer with "
                "AdapterCheckpoint() the `ckpt_path`."
            ) from None

    def _check_length(self) -> None:
        assert self.model is not None
        check_length(self.model, getattr(getattr(self.trainer, "datamodule", None), "longest", 0), self.backbone)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        assert self.objective is not None
        assert self.model is not None
        size = len(batch["input_ids" if "input_ids" in batch else "labels"])
        loss = self.objective.loss(self.model, batch)
        self.log("train_loss", loss, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the metrics of the batch's split."""
        self._evaluate(
            batch, self.validation_metrics[dataloader_idx], self._is_repeated("val", batch_idx, dataloader_idx)
        )

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the metrics of the batch's split."""
        self._evaluate(batch, self.test_metrics[dataloader_idx], self._is_repeated("test", batch_idx, dataloader_idx))

    def _is_repeated(self, stage: Literal["val", "test"], batch_idx: int, dataloader_idx: int) -> bool:
        """Return whether the distributed sampler repeats this batch, so that every process has as many."""
        if self.trainer.world_size == 1:
            return False
        loaders: Any = self.trainer.val_dataloaders if stage == "val" else self.trainer.test_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
        if not isinstance(getattr(loader, "sampler", None), DistributedSampler):
            return False
        # The loader's items are whole batches, dealt out to the processes in turn.
        return batch_idx * self.trainer.world_size + self.trainer.global_rank >= len(loader.dataset)

    def _evaluate(self, batch: dict[str, Any], metrics: nn.Module, repeated: bool) -> None:
        assert isinstance(metrics, TaskMetrics)
        # Not left out, since the processes may have to work together on each batch.
        predictions, loss = self._predict(batch)
        if not repeated:
            metrics.update(predictions, batch)
        shared: dict[str, Any] = {"batch_size": 0 if repeated else len(batch["id"]), "add_dataloader_idx": False}
        self.log_dict(metrics.named(), prog_bar=True, **shared)
        if loss is not None:
            assert self.objective is not None
            weight = 0 if repeated else self.objective.loss_weight(batch)
            self.log(f"{metrics.prefix}loss", loss, sync_dist=True, **{**shared, "batch_size": weight})

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return the predictions of a batch: ``rows``, each with ``id`` and decoded ``prediction``."""
        assert self.objective is not None
        predictions = self.objective.decode(self._predict(batch)[0], batch)
        return {"rows": [{"id": i, "prediction": p} for i, p in zip(batch["id"].tolist(), predictions, strict=True)]}

    def _predict(self, batch: dict[str, Any]) -> tuple[Any, Tensor | None]:
        assert self.objective is not None
        assert self.model is not None
        return self.objective.evaluate(self.model, batch)

    def make_optimizer(self) -> Optimizer:
        """The optimizer over what is trainable."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return self.optimizer(parameters) if self.optimizer else ReferenceAdam(parameters, lr=self.learning_rate)

    def configure_optimizers(self) -> Any:
        """The optimizer over what is trainable, and the scheduler if there is one."""
        if self.method is None and all(parameter.requires_grad for parameter in self.parameters()):
            raise BeftError(
                "tune is 'auto', but no bias term has been selected: add BiasSelectionCallback() to the trainer's "
                "callbacks, or say what to train, for example tune='value'."
            )
        optimizer = self.make_optimizer()
        if self.lr_scheduler is not None:
            return [optimizer], [each_epoch(self.lr_scheduler(optimizer), self)]
        if self.schedule == "constant":
            return optimizer
        return [optimizer], [linear_decay(optimizer, int(self.trainer.estimated_stepping_batches))]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler, unless :meth:`on_train_epoch_end` does."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Step a scheduler that looks at a metric, before the epoch's checkpoint is written."""
        if isinstance(scheduler := self.lr_schedulers(), ReduceLROnPlateau):
            step_on_plateau(scheduler, self.trainer)
