"""Names of configurations that stand for two files."""

from pathlib import Path

import pytest

from beft_lightning.configurations import parts, shipped, with_parts


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    models, tasks = ("bert", "bert_large", "opt1.3b"), ("sst2", "sst2_prompt", "sst2_30_epochs", "copa", "copa_None")
    for name in (*(f"model/{model}" for model in models), *(f"task/{task}" for task in tasks), "own"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("own", ["own"]),
        ("bert_sst2", ["model/bert", "task/sst2"]),
        ("bert_large_sst2", ["model/bert_large", "task/sst2_30_epochs"]),
        ("bert_copa", ["model/bert", "task/copa"]),
        ("bert_large_copa", ["model/bert_large", "task/copa"]),
        ("opt1.3b_sst2", ["model/opt1.3b", "task/sst2_prompt"]),
        ("opt1.3b_copa", ["model/opt1.3b", "task/copa"]),
        ("bert_sst2_prompt", ["model/bert", "task/sst2_prompt"]),
        ("bert_mnli", ["bert_mnli"]),
        ("gpt_sst2", ["gpt_sst2"]),
        ("bert", ["bert"]),
    ],
)
def test_a_name_is_a_file_or_a_model_and_a_task(name: str, files: list[str], configs: Path) -> None:
    assert parts(configs / f"{name}.yaml") == [configs / f"{file}.yaml" for file in files]


def test_a_command_line_gets_the_files(configs: Path) -> None:
    name, model, task = (f"{configs}/{part}.yaml" for part in ("bert_sst2", "model/bert", "task/sst2"))
    given = ["fit", "--config", name, "-c", "own.yaml", f"--config={name}", "--data.seed", name, "--config"]
    assert with_parts(given) == [
        *("fit", "--config", model, "--config", task, "-c", "own.yaml", f"--config={model}", f"--config={task}"),
        *("--data.seed", name, "--config"),
    ]


def test_the_configurations_of_the_package_are_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parts(Path("configs/quickstart.yaml")) == [shipped() / "quickstart.yaml"]
    assert parts(Path("configs/bert_base_rte.yaml")) == [
        shipped() / "model/bert_base.yaml",
        shipped() / "task/rte.yaml",
    ]
    assert parts(Path("configs/unknown.yaml")) == [Path("configs/unknown.yaml")]
    (tmp_path / "configs").mkdir()  # the user's own folder comes first
    assert parts(Path("configs/quickstart.yaml")) == [Path("configs/quickstart.yaml")]
