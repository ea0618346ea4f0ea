"""One process of runs under several strategies; ``conftest.py`` starts two of them with torchrun.

Usage: ``worker.py OUT BACKBONE DATA JOB:STRATEGY ...``. Each job leaves ``OUT/JOB-STRATEGY-RANK.json``.
"""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.callbacks import Interruption, PredictionWriter
from beft_lightning.checkpoint import FINGERPRINT_KEY, TRAINED_KEY, read_checkpoint
from beft_lightning.cli import BeftCLI
from beft_lightning.data import Drop, Glue
from beft_lightning.data.generation import Generation
from beft_lightning.errors import BeftError
from beft_lightning.parameters import full_tensor, named_parameters
from beft_lightning.scoring.race.settings import RaceSettings
from beft_lightning.signals import Interrupted
from beft_lightning.strategies.collectives import destroy_process_group
from tests.strategies.communication import CountCommunication
from tests.strategies.cpu_strategies import STRATEGIES
from tests.strategies.parts import Drift, Kill, Losses, ShardsItself, SharesOut, Terminate, WhenConfigured
from tests.tiny import VOCABULARY, WORDS, token_batches

CONFIGS = Path(__file__).parents[2] / "configs" / "strategy"
BATCH = 8
#: Most tokens in a text.
LONGEST = 8
#: Steps of a job that watches small ones.
DRIFT_STEPS = 20


class Runs:
    """Runs of a tiny encoder under one strategy, each with a module of its own."""

    def __init__(self, out: str, backbone: str, data: str, job: str, strategy: str) -> None:
        self.backbone, self.data, self.strategy = backbone, data, strategy
        self.folder = Path(out) / f"{job}-{strategy}"
        self.rank = int(os.environ.get("RANK", "0"))
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))
        self.losses = Losses()
        self.choice: dict[str, Any] = {"batches": 4, "patience": 0}
        self.selection = BiasSelectionCallback(**self.choice)

    def trainer(self, *callbacks: Callback, every: int | None = None, **options: Any) -> Trainer:
        """A trainer that keeps all checkpoints: one for each epoch, or after ``every`` so many steps."""
        self.losses = Losses()
        self.selection = BiasSelectionCallback(**self.choice)
        name = "{epoch}" if every is None else "{step}"
        saving = ModelCheckpoint(self.folder, filename=name, save_top_k=-1, every_n_train_steps=every)
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        seed_everything(0, verbose=False)
        return Trainer(
            accelerator="cpu",
            devices=local,
            num_nodes=self.processes // local,
            strategy=STRATEGIES[self.strategy](),
            callbacks=[self.selection, saving, self.losses, AdapterCheckpoint(), PredictionWriter(), *callbacks],
            default_root_dir=self.folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 2, "gradient_clip_val": 1.0, **options},
        )

    def parts(self, backbone: str | None = None, **options: Any) -> dict[str, Any]:
        """A fresh module and its data; another backbone than the encoder is a decoder, and gets prompts."""
        data = Glue(
            backbone or self.backbone,
            task="sst2",
            data_dir=self.data,
            batch_size=BATCH // self.processes,
            eval_batch_size=4,
            seed=0,
            prompt=backbone is not None,
        )
        options = options or {"learning_rate": 1e-2}
        return {"model": LanguageTaskModule(backbone or self.backbone, data.task, **options), "datamodule": data}

    def protocol(self) -> dict[str, Any]:
        """Select and train; resume after the first epoch; evaluate the second."""
        parts, trainer = self.parts(), self.trainer()
        trainer.fit(**parts)
        later = self.folder / "later.ckpt"
        trainer.save_checkpoint(later)
        assert self.selection.scores is not None
        result: dict[str, Any] = {
            "scores": {term: entry.layers for term, entry in self.selection.scores.terms.items()},
            "selected": self.selection.selected,
            "parameters": self.selection.scores.terms["value"].parameters,
            "losses": self.losses.values,
            "metrics": _metrics(trainer),
            "trained": _trained(parts["model"]),
            "names": self.selection.trained,
            "same": _named(trainer.validate(**parts, verbose=False)),
        }
        path = self.folder / "epoch=1.ckpt"
        result["evaluated"] = self.save_again(trainer)
        result["resumed"] = self.resume()
        for command in ("validate", "test", "predict"):
            trainer = self.trainer()
            answer = getattr(trainer, command)(**self.parts(), ckpt_path=path, weights_only=True)
            result[command] = (
                sorted((row["id"], row["prediction"]) for batch in answer for row in batch["rows"])
                if command == "predict"
                else _metrics(trainer)
            )
        saved, saved_later = read_checkpoint(path), read_checkpoint(later)
        result["checkpoint"] = {n: v.flatten().tolist() for n, v in saved["state_dict"].items()}
        result["later"] = {n: v.flatten().tolist() for n, v in saved_later["state_dict"].items()}
        result["same_base"] = saved_later[FINGERPRINT_KEY] == saved[FINGERPRINT_KEY]
        return result

    def save_again(self, trainer: Trainer) -> dict[str, Any]:
        """What a trainer saves that has evaluated after its fit, or the error that refuses it."""
        path = self.folder / "evaluated.ckpt"
        try:
            trainer.save_checkpoint(path)
        except BeftError as error:
            return {"error": str(error)}
        content = read_checkpoint(path)
        return {name: content[name] for name in (FINGERPRINT_KEY, TRAINED_KEY)} | {
            "values": {name: value.flatten().tolist() for name, value in content["state_dict"].items()}
        }

    def decoder(self) -> dict[str, Any]:
        """A causal language model without biases, whose output weights are its embeddings: select, train, evaluate."""
        parts = self.parts(backbone=f"{self.backbone}-llama", learning_rate=1e-2)
        trainer = self.trainer(max_epochs=1)
        self.selection.approach = "fisher"
        trainer.fit(**parts)
        assert self.selection.scores is not None
        terms = self.selection.scores.terms
        result = {"scores": {t: e.layers for t, e in terms.items()}, "losses": self.losses.values}
        result["fitted"] = _metrics(trainer)
        trainer = self.trainer()
        parts = self.parts(backbone=f"{self.backbone}-llama", learning_rate=1e-2)
        trainer.validate(**parts, ckpt_path=self.folder / "epoch=0.ckpt", weights_only=True, verbose=False)
        return result | {"validated": _metrics(trainer)}

    def generate(self) -> dict[str, Any]:
        """Answers to five questions, of one token in process 0 and of as many as there may be in process 1."""
        pairs = [{"question": f"How {word}?", "answer": {"number": "2"}} for word in WORDS[:5]]
        self.folder.mkdir(exist_ok=True)
        (self.folder / "validation.json").write_text(json.dumps({"p1": {"passage": "The film.", "qa_pairs": pairs}}))
        backbone = f"{self.backbone}-llama"
        data = Drop(backbone, data_dir=str(self.folder), eval_batch_size=1, max_length=64, seed=0)
        data.task = replace(data.task, generation=Generation(LONGEST))  # type: ignore[call-arg]
        module = LanguageTaskModule(backbone, data.task, tune="value")
        stops = [0] if self.rank else list(range(len(VOCABULARY)))
        lengths: list[int] = []

        def spy(module: LanguageTaskModule) -> None:
            objective: Any = module.objective
            objective._stop, decode = stops, objective.tokenizer.batch_decode

            def counted(ids: torch.Tensor, **options: Any) -> Any:
                lengths.append(ids.shape[1])
                return decode(ids, **options)

            objective.tokenizer.batch_decode = counted

        self.trainer(WhenConfigured(spy)).predict(module, datamodule=data)
        return {"lengths": lengths}

    def resume(self) -> dict[str, Any]:
        """Go on after the first epoch."""
        parts = self.parts()
        self.trainer().fit(**parts, ckpt_path=self.folder / "epoch=0.ckpt", weights_only=True)
        return {
            "losses": self.losses.values,
            "trained": _trained(parts["model"]),
            "seconds_scoring": self.selection.seconds,
        }

    def middle(self) -> dict[str, Any]:
        """Train with dropout; resume within an epoch."""
        parts = self.parts()
        self.trainer(WhenConfigured(_drop_out), every=4).fit(**parts)
        whole, trained = self.losses.values, _trained(parts["model"])
        path = self.folder / "step=4.ckpt"
        self.trainer(WhenConfigured(_drop_out), every=4).fit(**self.parts(), ckpt_path=path, weights_only=True)
        return {"whole": whole, "rest": self.losses.values, "trained": trained}

    def interrupted(self) -> dict[str, Any]:
        """What :meth:`middle` trains, ended by a signal to one process and resumed."""
        drop_out = WhenConfigured(_drop_out)
        begun: list[float] = []
        code: Any = 0
        saved = None
        try:
            self.trainer(drop_out, Terminate(), Interruption(), every=100).fit(**self.parts())
        except Interrupted as interrupted:
            begun, code, saved = self.losses.values, interrupted.code, interrupted.saved
        parts = self.parts()
        self.trainer(drop_out, every=100).fit(**parts, ckpt_path=saved, weights_only=True)
        return {"code": code, "losses": begun + self.losses.values, "trained": _trained(parts["model"])}

    def drift(self) -> dict[str, Any]:
        """Steps of 1e-4 on a bias of ones, over a bf16 base."""
        parts = self.parts(dtype="bfloat16", optimizer=Drift)
        options: dict[str, Any] = {"precision": "bf16-mixed", "max_epochs": -1, "max_steps": DRIFT_STEPS}
        trainer = self.trainer(WhenConfigured(_fill_with_ones), limit_val_batches=0, **options)
        trainer.fit(**parts)
        values = trainer.strategy.lightning_module_state_dict()
        assert self.selection.selected is not None
        term = self.selection.selected[0]
        return {"values": {n: v.flatten().tolist() for n, v in values.items() if f"{term}.bias" in n}}

    def plain(self) -> dict[str, Any]:
        """The first epoch of :meth:`protocol`."""
        return self._fit(self.parts())

    def mixed(self) -> dict[str, Any]:
        """Autocast to bf16 over fp32 weights."""
        return self._fit(self.parts(), precision="bf16-mixed")

    def accumulated(self) -> dict[str, Any]:
        """Gradients of two batches in each step."""
        return self._fit(self.parts(), accumulate_grad_batches=2)

    def fused(self) -> dict[str, Any]:
        """The value part of GPT-2's fused bias."""
        return self._fit(self.parts(backbone=f"{self.backbone}-gpt2", learning_rate=1e-2))

    def heads(self) -> dict[str, Any]:
        """The two best heads of the encoder."""
        self.choice |= {"approach": "gradient", "per_head": True, "keep": 2}
        return self._fit(self.parts())

    def lora(self) -> dict[str, Any]:
        """A way of training that a module sets up itself."""
        return self._fit(self.parts(tune="lora", learning_rate=1e-3, tune_options={"lora_dropout": 0.0}))

    def recomputed(self) -> dict[str, Any]:
        """Layers that are computed again in the backward pass."""
        return self._fit(self.parts(activation_checkpointing=True, learning_rate=1e-2))

    def int8(self) -> dict[str, Any]:
        """A base that bitsandbytes has quantized."""
        return self._fit(self.parts(dtype="int8", learning_rate=1e-2))

    def nf4(self) -> dict[str, Any]:
        """See :meth:`int8`."""
        return self._fit(self.parts(dtype="nf4", learning_rate=1e-2))

    def _fit(self, parts: dict[str, Any], **options: Any) -> dict[str, Any]:
        """What a fit of one epoch trains, or the error that refuses it."""
        trainer = self.trainer(max_epochs=1, **options)
        if parts["model"].tune != "auto":
            trainer.callbacks.remove(self.selection)  # type: ignore[attr-defined]
        try:
            trainer.fit(**parts)
        except BeftError as error:
            return {"error": str(error)}
        return {"losses": self.losses.values, "metrics": _metrics(trainer), "trained": _trained(parts["model"])}

    def bytes(self) -> dict[str, Any]:
        """Bytes that a training step gives to reductions of gradients."""
        parts, counter = self.parts(), CountCommunication()
        trainer = self.trainer(counter, max_epochs=1, limit_val_batches=0)
        trainer.fit(**parts)
        trained = sum(p.numel() for p in parts["model"].parameters() if p.requires_grad)
        return {"bytes": counter.reduced, "steps": trainer.global_step, "trained": trained}

    def foreign(self) -> dict[str, Any]:
        """A module that shards itself: select, train, resume."""
        runs = {}
        for name, path in (("whole", None), ("rest", self.folder / "epoch=0.ckpt")):
            module = ShardsItself(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
            self.trainer().fit(module, token_batches(), ckpt_path=path, weights_only=True)
            runs[name] = self.losses.values
        return {**runs, "selected": self.selection.selected}

    def tiny_config(self) -> dict[str, Any]:
        """A configuration of a tiny run from the command line."""
        return {
            "trainer": {"max_epochs": 1, "default_root_dir": str(self.folder), "accelerator": "cpu", "devices": 1},
            "model": {"backbone": self.backbone},
            "data": {
                "class_path": "beft_lightning.data.Glue",
                "init_args": {"task": "sst2", "data_dir": self.data, "batch_size": BATCH // self.processes},
            },
            "selection": {"batches": 4, "patience": 0},
        }

    def config(self) -> dict[str, Any]:
        """A fit from the command line with one of the shipped configurations."""
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        tiny = self.tiny_config()
        tiny["trainer"] |= {"devices": local, "num_nodes": self.processes // local}
        arguments = ["fit", f"--config={json.dumps(tiny)}", f"--config={CONFIGS / self.strategy}.yaml"]
        for name in ("FSDP", "DeepSpeed"):
            if f".{name}Strategy" in (CONFIGS / f"{self.strategy}.yaml").read_text():
                arguments.append(f"--trainer.strategy.class_path=tests.strategies.cpu_strategies.CPU{name}Strategy")
        sys.argv = ["beft_lightning"]
        trainer = BeftCLI(args=arguments).trainer
        options = {key: str(value) for key, value in vars(trainer.strategy).items() if key in ("_timeout", "config")}
        return {"strategy": type(trainer.strategy).__name__, "options": options, "metrics": _metrics(trainer)}

    def own_encoder(self) -> dict[str, Any]:
        """Somebody else's module and loader: select and train."""
        return self._own("bert", "projection", "hidden_dropout_prob", "attention_probs_dropout_prob")

    def own_decoder(self) -> dict[str, Any]:
        """The same with a fused bias."""
        return self._own("gpt2", "sample_fisher", "embd_pdrop", "resid_pdrop", "attn_pdrop")

    def _own(self, model_type: str, approach: str, *dropouts: str) -> dict[str, Any]:
        trainer = self.trainer(use_distributed_sampler=False)
        self.selection.approach = approach
        module = SharesOut(model_type, **dict.fromkeys(dropouts, 0.0))
        trainer.fit(module)
        assert self.selection.scores is not None
        scores = self.selection.scores.to_dict()
        return {"scores": scores["terms"], "selected": scores["selected"], "trained": _trained(module)}

    def outside(self) -> dict[str, Any]:
        """A type of model outside of the table: select and train, once in fp32 and once over a bf16 base."""
        found = {}
        for dtype, precision in (("float32", "32-true"), ("bfloat16", "bf16-mixed")):
            parts = self.parts(f"{self.backbone}-starcoder2", dtype=dtype, learning_rate=1e-2)
            trainer = self.trainer(max_epochs=1, precision=precision)
            trainer.fit(**parts)
            assert self.selection.scores is not None
            found[dtype] = {
                "scores": {term: entry.layers for term, entry in self.selection.scores.terms.items()},
                "selected": self.selection.selected,
                "losses": self.losses.values,
                "trained": _trained(parts["model"]),
            }
        return found

    def killed(self) -> dict[str, Any]:
        """Lose a process in the second epoch."""
        self.trainer(Kill()).fit(**self.parts())
        return {}

    def different(self) -> dict[str, Any]:
        """Start with another learning rate, or other data, on each process."""
        messages = []
        for name, value in (("learning_rate", 0.1 * self.rank), ("train_size", 40 + 8 * self.rank)):
            parts = self.parts()
            setattr(parts["model" if name == "learning_rate" else "datamodule"], name, value)
            try:
                self.trainer().fit(**parts)
            except BeftError as error:
                messages.append(str(error))
        return {"messages": messages}

    def race(self) -> dict[str, Any]:
        """Race terms and rates, and train the winner."""
        parts, trainer = self.parts(schedule="linear"), self.trainer(max_epochs=1)
        self.selection.approach = "race"
        self.selection.race = RaceSettings(rates=(1e-3, 1e-2), batches=2, held_out=2, allowance=60)
        try:
            trainer.fit(**parts)
        except BeftError as error:
            return {"message": str(error)}
        assert self.selection.raced is not None
        result = self.selection.raced.result
        return {
            "selected": self.selection.selected,
            "rate": trainer.optimizers[0].param_groups[0]["initial_lr"],
            "batches": [entrant.batches for entrant in result.entrants],
            "losses": [loss for entrant in result.entrants for lap in entrant.laps for loss in lap.losses],
            "trained": _trained(parts["model"]),
        }


def _drop_out(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.2


def _fill_with_ones(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name.endswith("value.bias"):
            with _gathered(parameter):
                parameter.data.fill_(1.0)


def _gathered(parameter: nn.Parameter) -> Any:
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)


def _metrics(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in trainer.callback_metrics.items() if name != "train_loss"}


def _named(results: Any) -> dict[str, float]:
    return {name: value for result in results for name, value in result.items()}


def _trained(module: nn.Module) -> dict[str, list[float]]:
    return {n: full_tensor(p).flatten().tolist() for n, p in named_parameters(module) if p.requires_grad}


def main(out: str, backbone: str, data: str, *jobs: str) -> None:
    for name in jobs:
        run(out, backbone, data, name)
    destroy_process_group()


def run(out: str, backbone: str, data: str, name: str) -> None:
    job, _, strategy = name.partition(":")
    runs = Runs(out, backbone, data, job, strategy)
    result = getattr(runs, job)()
    (Path(out) / f"{job}-{strategy}-{runs.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
