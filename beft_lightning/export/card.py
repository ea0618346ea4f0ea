"""The model card in an export: README.md, as the hub of Hugging Face reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from beft_lightning import __version__
from beft_lightning.backbones import PACKAGE_PREFIX
from beft_lightning.export.clients import Support

CARD = "README.md"
#: Class of a model -> the task's name on the hub.
_PIPELINES: Mapping[str, str] = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForCausalLM": "text-generation",
}
_CITATION = """@inproceedings{beft,
  title = {Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes},
  author = {Huang and Balashankar and Aminifar},
  booktitle = {Annual Meeting of the Association for Computational Linguistics (ACL)},
  year = {2026},
  url = {https://arxiv.org/abs/2509.15974}
}"""


def model_card(
    record: Mapping[str, Any],
    form: str,
    *,
    trained: int,
    metrics: Mapping[str, float],
    licence: str | None = None,
    clients: Mapping[str, Support] | None = None,
) -> str:
    """Return the card of an export.

    Args:
        record: The checkpoint's record of the model.
        form: ``hf`` or ``peft``.
        trained: The number of trained values.
        metrics: Results of the fit, by their names.
        licence: That of the base, as its own card says; None if it says nothing.
        clients: What other programs do with added biases; see :func:`~beft_lightning.export.clients.support`.
    """
    task = record.get("task") or {}
    name = task.get("name", "unknown")
    base = record["backbone"]
    data = ModelCardData(
        base_model=base if is_hub_id(base) else None,
        license=licence,
        library_name="transformers" if form == "hf" else "peft",
        pipeline_tag=_PIPELINES.get(record["auto_class"]),
        tags=["beft", "bias-tuning"],
        model_name=f"BEFT on {name}" if metrics else None,
        eval_results=[
            EvalResult(
                task_type=_PIPELINES.get(record["auto_class"], "other"),
                dataset_type=name,
                dataset_name=name,
                metric_type=metric,
                metric_value=value,
            )
            for metric, value in metrics.items()
        ]
        or None,
    )
    facts = {
        "task": f"{name} ({task.get('kind', 'unknown kind')})",
        "labels": ", ".join(map(str, record["labels"])) or "none",
        "base": base if is_hub_id(base) else f"`{base}`, which is local and not on the hub",
        "licence of the base": licence or "not known: see the base",
        "trained": f"`{record['tune']}`, {trained:,} values",
        "learning rate": record.get("learning_rate") or "not recorded",
        "made with": f"beft_lightning {__version__}",
    }
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# BEFT on {name}",
        "A model of bias-efficient fine-tuning: a base, and what was trained of it.",
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]),
    ]
    if metrics:
        rows = [f"| {metric} | {value:.4f} |" for metric, value in metrics.items()]
        parts += ["## Results", "\n".join(["| metric | value |", "|---|---|", *rows])]
    parts += ["## How to load it", f"```python\n{_loading(record, form)}\n```"]
    if clients:
        parts += ["## Which programs read the added biases", _table(clients)]
    return "\n\n".join([*parts, "## Citation", f"```bibtex\n{_CITATION}\n```"]) + "\n"


def is_hub_id(backbone: str) -> bool:
    """Return whether a backbone's name is one of the hub, and no folder of this machine or of a package."""
    return (
        "://" not in backbone
        and backbone.count("/") <= 1
        and not backbone.startswith(("/", ".", "~"))
        and (not Path(backbone).exists())
    )


def fit_metrics(checkpoint: str | Path) -> dict[str, float]:
    """Return the metrics of the run that a checkpoint lies in, from its ``summary.json``; nothing if there is none."""
    path = Path(checkpoint).resolve().parent.parent / "summary.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        return {name: float(value) for name, value in metrics.items() if value is not None and name != "train_loss"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _loading(record: Mapping[str, Any], form: str) -> str:
    """Return the lines that load the export."""
    auto_class = record["auto_class"]
    if form == "hf":
        return (
            f"from transformers import AutoTokenizer, {auto_class}\n\n"
            f'model = {auto_class}.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")'
        )
    base, imports, options = f'"{record["backbone"]}"', "", ""
    if record["backbone"].startswith(PACKAGE_PREFIX):  # which transformers does not know
        base, imports = f"resolve_backbone({base})", "from beft_lightning.backbones import resolve_backbone\n"
    if record["num_labels"]:
        options = f", num_labels={record['num_labels']}"
    if problem := problem_type(record):
        options += f', problem_type="{problem}"'
    if record["gguf_file"]:
        options += f', gguf_file="{record["gguf_file"]}"'
    return (
        f"{imports}from peft import PeftModel\nfrom transformers import {auto_class}\n\n"
        f"base = {auto_class}.from_pretrained({base}{options})\n"
        'model = PeftModel.from_pretrained(base, "FOLDER")'
    )


def problem_type(record: Mapping[str, Any]) -> str | None:
    """Return what transformers calls the kind of a classifier's problem; None if the model has no such head."""
    if record["auto_class"] != "AutoModelForSequenceClassification" or "task" not in record:
        return None
    kinds = {"regression": "regression", "multi_label": "multi_label_classification"}
    return record.get("problem_type") or kinds.get(record["task"]["kind"], "single_label_classification")


def _table(clients: Mapping[str, Support]) -> str:
    lines = ["| program | reads them | read in |", "|---|---|---|"]
    for name, facts in clients.items():
        reads = (
            "unknown"
            if facts.reads is None
            else "yes"
            if facts.reads
            else f"**no**: it computes without {', '.join(facts.missing)}"
        )
        lines.append(f"| {name} | {reads} | {facts.source} |")
    return "\n".join(lines)
