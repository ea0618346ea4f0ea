"""A run that fails before it has a model."""

from pathlib import Path

import pytest

from beft_lightning.__main__ import main
from beft_lightning.data import Glue
from tests.tiny import save_backbone


@pytest.mark.parametrize("missing", ["everything", "weights"])
def test_nothing_is_left_behind(
    missing: str, sst2_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = tmp_path / "backbone"
    if missing == "weights":
        save_backbone(backbone)
        for file in backbone.glob("*.safetensors"):
            file.unlink()
    before = sorted(tmp_path.rglob("*"))
    options = ["--data.data_dir", sst2_dir, "--data.task", "sst2", "--trainer.default_root_dir", f"{tmp_path}/new/runs"]
    status = main(["fit", "--data", "Glue", "--model.backbone", str(backbone), *options])
    assert (status, sorted(tmp_path.rglob("*"))) == (2, before)
    assert str(backbone) in capsys.readouterr().err


def test_what_another_run_has_written_meanwhile_stays(
    sst2_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def setup(self: Glue, stage: str) -> None:
        (tmp_path / "lightning_logs" / "version_1").mkdir(parents=True)
        raise FileNotFoundError(2, "gone", "data")

    monkeypatch.setattr(Glue, "setup", setup)
    options = ["--data.data_dir", sst2_dir, "--data.task", "sst2", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", "--data", "Glue", "--model.backbone", "any", *options]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["lightning_logs", "version_1"]
