"""What is released: the wheel, the version, the oldest dependencies, and an installation without DeepSpeed."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import beft_lightning
from beft_lightning.__main__ import main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "beft_lightning"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.mark.skipif(find_spec("setuptools") is None, reason="needs setuptools to build")
def test_the_wheel_holds_the_whole_package_and_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    build = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path / "info")]
    build += ["build_py", "--build-lib", str(tmp_path / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    configurations = {f"configs/{name}" for name in files(ROOT / "configs")}
    assert files(tmp_path / "wheel" / "beft_lightning") == files(PACKAGE) | configurations


def test_the_version_is_one() -> None:
    version = beft_lightning.__version__
    newest = re.findall(r"^## (\d\S*) - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert PROJECT["dynamic"] == ["version"]  # read from the package


def test_the_oldest_dependencies_are_those_of_the_project() -> None:
    """``make test-minimum`` installs what this file pins."""
    lines = (ROOT / "constraints-minimum.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    floors = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", dependency) for dependency in PROJECT["dependencies"]]
    assert all(floors), "a dependency without the oldest version that works"
    assert pinned == [list(floor.groups()) for floor in floors if floor]


class _WithoutDeepSpeed(PathFinder):
    """Finds everything but DeepSpeed."""

    @classmethod
    def find_spec(cls, fullname: str, *args: Any, **options: Any) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] == "deepspeed" else super().find_spec(fullname, *args, **options)


@pytest.fixture
def no_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides DeepSpeed, installed or not."""
    monkeypatch.setattr(sys, "meta_path", [_WithoutDeepSpeed if f is PathFinder else f for f in sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)
    assert find_spec("deepspeed") is None


@pytest.mark.usefixtures("no_deepspeed")
def test_without_deepspeed_all_else_works(argv: Callable[..., list[str]], out: Path) -> None:
    assert main(argv("fit", "--trainer.strategy", "ddp")) == 0
    checkpoint = str(out / "version_0" / "checkpoints" / "last.ckpt")
    assert main(argv("validate", "--ckpt_path", checkpoint)) == 0


@pytest.mark.usefixtures("no_deepspeed")
def test_without_deepspeed_its_strategies_say_what_to_install(
    argv: Callable[..., list[str]], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("fit", "--trainer.strategy", "deepspeed_stage_2")) == 2
    assert "trainer.strategy deepspeed_stage_2 needs DeepSpeed, which is not installed: " in capsys.readouterr().err
    assert not out.exists()


def test_deepspeed_is_imported_on_demand_only() -> None:
    """An import at the top of a module would end every command where DeepSpeed is not installed."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] == "deepspeed" for name in names), path
