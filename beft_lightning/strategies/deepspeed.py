"""DeepSpeed with ZeRO of stage 1, 2 or 3."""

from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from beft_lightning.checkpoint import ADAPTER_FILE
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.models import QUANTIZED
from beft_lightning.strategies.internals.deepspeed import gathered_throughout, is_partitioned, partitioned_shape
from beft_lightning.strategies.internals.lightning import step_inside_forward
from beft_lightning.strategies.sharded import ShardedAdapterStrategy

#: Key of a checkpoint under which it says who can read its optimizer's state: stage and number of processes.
_ENGINE_KEY = "beft_deepspeed"


class DeepSpeedAdapterStrategy(ShardedAdapterStrategy, DeepSpeedStrategy):
    """DeepSpeed, whose engine takes what is trainable once and for all."""

    _folder: Path | None = None

    @property
    def quantized(self) -> tuple[str, ...]:
        """All where the weights are whole: not with ZeRO-3."""
        return () if self.zero_stage_3 else QUANTIZED

    @property
    def recomputes(self) -> bool:
        """Not with ZeRO-3: torch finds released weights where there were gathered ones."""
        return not self.zero_stage_3

    def prepare_model(self) -> None:
        """Configure the engine, then select the term: the engine takes what is trainable once and for all."""
        self._give_batch_size()
        super().prepare_model()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Tell transformers, too, that weights are to be sharded as they are loaded (ZeRO-3).

        Raises:
            BeftError: If accelerate is missing, which transformers needs for that.
        """
        self._give_batch_size()
        with super().model_sharded_context():
            if self.zero_stage_3:
                if find_spec("accelerate") is None:
                    raise BeftError("transformers needs accelerate for ZeRO stage 3: `pip install accelerate`.")
                from transformers.integrations import HfDeepSpeedConfig

                self._config_of_transformers = HfDeepSpeedConfig(self.config)  # it goes by a weak reference
            yield

    def _give_batch_size(self) -> None:
        """Name a batch size, which only logs of the speed need; Lightning would make a training loader to find out."""
        assert isinstance(self.config, dict)
        self.config.setdefault("train_micro_batch_size_per_gpu", 1)

    def teardown(self) -> None:
        """Let transformers load whole models again."""
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
        super().teardown()

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Under ZeRO-3, gather the weights layer by layer with an engine that has no optimizer, and is thrown away."""
        module = self.lightning_module
        assert module is not None
        if not any(map(is_partitioned, module.parameters())):
            with super().scoring(trained):
                yield
            return
        import deepspeed

        assert self.config is not None
        names = ("bf16", "fp16", "zero_optimization", "zero_allow_untested_optimizer")
        engine, *_ = deepspeed.initialize(
            args=Namespace(device_rank=self.root_device.index),
            config={"train_micro_batch_size_per_gpu": 1} | {n: self.config[n] for n in names if n in self.config},
            model=module,
            model_parameters=[],
            dist_init_required=False,
        )
        # Norms, too, as they take one precision for weight and bias.
        norms = [p for p in module.parameters() if len(partitioned_shape(p)) < 2]
        kept = list(dict.fromkeys([*trained, *norms]))
        precision = {parameter: parameter.dtype for parameter in kept}
        try:
            with gathered_throughout(engine, kept):
                for parameter in kept:
                    parameter.data = parameter.data.float()
                yield
        finally:
            for parameter in kept:
                parameter.data = parameter.data.to(precision[parameter])

    def scoring_step(self, *arguments: Any) -> Any:
        """Run the module's ``training_step`` inside its ``forward``, where the engine's hooks are."""
        module = self.lightning_module
        assert module is not None
        return step_inside_forward(self, module, *arguments)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the trained values and the buffers.

        Raises:
            CheckpointError: If the trainer's last run was no fit.
        """
        assert self.lightning_module is not None
        if self.lightning_module.trainer.state.fn != TrainerFn.FITTING:
            raise CheckpointError(
                "DeepSpeed ends the engine of a fit, which holds the optimizer's state and the precise values, when "
                "the trainer evaluates: call save_checkpoint before that. Checkpoints that the fit has written stay "
                "valid."
            )
        return super().lightning_module_state_dict()

    def trained_value(self, parameter: nn.Parameter) -> Tensor:
        """Return the optimizer's own fp32 value, of which the module may have a half-precision copy."""
        from deepspeed.utils import safe_get_full_fp32_param

        value = safe_get_full_fp32_param(parameter)
        return super().trained_value(parameter) if value is None else value.detach()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return nothing: the engine writes it."""
        return {}

    def _write_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any) -> None:
        """Write a folder: the engine's files, and one with everything but the optimizer's state."""
        folder = Path(self.broadcast(filepath))
        self.deepspeed_engine.save_checkpoint(
            str(folder),
            tag="checkpoint",
            client_state={"global_step": checkpoint["global_step"]},
            exclude_frozen_parameters=True,
        )
        content = {**checkpoint, "optimizer_states": [], _ENGINE_KEY: self._engine}
        super()._write_checkpoint(content, folder / ADAPTER_FILE, storage_options)

    @property
    def _engine(self) -> str:
        assert self.config is not None
        stage = self.config.get("zero_optimization", {}).get("stage", 0)
        return f"DeepSpeed ZeRO stage {stage} in {self.world_size} processes"

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read all but the optimizer's state, which the engine reads once there is one."""
        self._folder = Path(checkpoint_path)
        return super().load_checkpoint(checkpoint_path, weights_only)

    def keep_precise(self, names: Collection[str]) -> None:
        """Leave the precision to the engine, which casts the module and has precise values in its optimizer."""

    def _load_values(self, checkpoint: Mapping[str, Any], strict: bool) -> None:
        """Put the trained values into the module, of which each process may hold a part."""
        import deepspeed

        assert self.lightning_module is not None
        named = dict(self.lightning_module.named_parameters())
        parts = [named[name] for name in checkpoint["state_dict"] if name in named and is_partitioned(named[name])]
        with deepspeed.zero.GatheredParameters(parts, modifier_rank=0, enabled=bool(parts)):
            super()._load_values(checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Let the engine continue.

        Raises:
            CheckpointError: If another strategy, stage or number of processes wrote the checkpoint, or it is not whole.
        """
        written = checkpoint.get(_ENGINE_KEY, "another strategy than DeepSpeed")
        if written != self._engine:
            raise CheckpointError(
                f"{self._folder}: written by {written}, and this is {self._engine}, which resumes only from its own: "
                "use the same strategy and number of processes. The trained values can be evaluated under any strategy."
            )
        _, state = self.deepspeed_engine.load_checkpoint(
            str(self._folder), tag="checkpoint", load_lr_scheduler_states=False, load_module_strict=False
        )
        if state is None or state["global_step"] != checkpoint["global_step"]:
            raise CheckpointError(
                f"{self._folder}: the run was stopped while it wrote this checkpoint, whose files are not of one step: "
                "resume from another."
            )
