"""The commands and links of README and docs: they exist, with options that exist."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.arguments import with_adapter, with_lists
from beft_lightning.bias import TERM_SYMBOLS
from beft_lightning.cli import BeftCLI
from beft_lightning.commands.compared_method import ZERO_SHOT
from beft_lightning.configurations import with_parts
from beft_lightning.parsers import (
    SUBCOMMANDS,
    export_parser,
    plot_parser,
    predict_parser,
    predicts_new_texts,
    serve_parser,
)
from beft_lightning.tuning import METHODS

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATIONS = [block for path in TEXTS for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)]
PYTHON = [(path, block) for path in TEXTS for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)]
BLOCKS = [block for path in TEXTS for block in re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL)]
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python -m beft_lightning")]
#: What stands in capitals for the user's own.
PLACES = {
    "SEED": "3",
    "TUNE": "value",
    "APPROACH": "fisher",
    "BATCHES": "16",
    "CHECKPOINT": "null",
    "CONFIG": "configs/table.yaml",
}


@pytest.fixture(scope="module")
def cli() -> BeftCLI:
    return BeftCLI(args=["--config", str(ROOT / "configs" / "minilm_sst2.yaml")], run=False)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line: str, cli: BeftCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [PLACES.get(word, word) for word in shlex.split(line, comments=True)[3:]]
    command, *options = with_adapter(words)
    assert command in SUBCOMMANDS
    if command == "export":
        export_parser().parse_args(options)
        return
    if command == "plot":
        plot_parser().parse_args(options)
        return
    if command == "serve":
        serve_parser().parse_args(options)
        return
    if predicts_new_texts([command, *options]):
        predict_parser().parse_args(options)
        return
    # The parser without commands knows all options but those that a command adds.
    own = {"--ckpt_path", "--out", "--rates", "--options"}
    for name in ("--rates", "--options"):
        if name in options:
            assert set(json.loads(options[options.index(name) + 1])) <= {*METHODS, *TERM_SYMBOLS}
    options = [word for word in options if word not in ("--json", "--seconds")]
    options = [w for i, w in enumerate(options) if w not in own and (i == 0 or options[i - 1] not in own)]
    if command == "compare":
        tunes, seeds, options = _lists(options)
        assert seeds
        assert all(tune in (*METHODS, *TERM_SYMBOLS, ZERO_SHOT) for tune in tunes)
    cli.parser.parse_args(with_parts(options))


def _lists(options: list[str]) -> tuple[list[str], list[str], list[str]]:
    """What is compared, with which seeds, and the other options."""
    texts = {"--tune": "[]", "--seeds": "[0]"}
    rest = []
    for option in with_lists(options):
        name, _, value = option.partition("=")
        if name in texts:
            texts[name] = value
        else:
            rest.append(option)
    return json.loads(texts["--tune"]), json.loads(texts["--seeds"]), rest


def test_there_are_commands_and_make_targets_to_test() -> None:
    assert len(COMMANDS) > 8
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [word.split()[1] for line in LINES if (word := line.strip()).startswith("make ")]
    assert {"quickstart", "test"} <= set(named) <= set(targets)


def test_every_link_leads_to_a_file() -> None:
    for path in [*TEXTS, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert target.startswith("http") or (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_link_into_a_page_leads_to_a_heading() -> None:
    for path in [*TEXTS, ROOT / "CONTRIBUTING.md"]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text()):
            page = path.parent / target if target else path
            headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
            # Of a heading, an anchor keeps letters, digits, hyphens and underscores, and turns spaces into hyphens.
            anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path.name}: {target}#{anchor}"


def test_every_configuration_on_a_page_parses(cli: BeftCLI, tmp_path: Path) -> None:
    assert CONFIGURATIONS
    for number, text in enumerate(CONFIGURATIONS):
        # A page's own file is meant to lie in the folder of configurations.
        text = re.sub(r"^config: ", f"config: {ROOT / 'configs'}/", text, flags=re.MULTILINE)
        (tmp_path / f"{number}.yaml").write_text(text)
        # It may be a part, to be given beside a file of a model and data.
        quickstart = str(ROOT / "configs" / "quickstart.yaml")
        cli.parser.parse_args(["--config", quickstart, "--config", str(tmp_path / f"{number}.yaml")])


def test_every_python_block_compiles() -> None:
    for path, block in PYTHON:
        compile(block, str(path.relative_to(ROOT)), "exec")


def test_the_tutorial_of_a_project_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for path, block in PYTHON:
        if path.stem == "your_project":
            exec(compile(block, path.name, "exec"), names)
    assert names["same"]
    assert names["selection"].selected in (["value"], ["query"])


def test_the_index_lists_every_page() -> None:
    listed = set(re.findall(r"\]\(([a-z_/]+\.md)\)", (ROOT / "docs" / "index.md").read_text()))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed | {"index.md"} == pages


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1050


def test_the_changelog_has_each_heading_once() -> None:
    title, unreleased, *released = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert title.startswith("# Changelog")
    assert unreleased.startswith("Unreleased\n")
    for version in (unreleased, *released):
        headings = re.findall(r"^### (\w+)$", version, re.MULTILINE)
        assert set(headings) <= {"Added", "Changed", "Fixed", "Removed"}
        assert len(headings) == len(set(headings)), f"a heading twice below {version.splitlines()[0]}"
        before = version.partition("\n### ")[0]
        assert "\n- " not in before, f"entries without a heading below {before.splitlines()[0]}: Added, Changed, Fixed?"
