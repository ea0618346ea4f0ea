"""The table of programs: a number where one computes what was trained, and a reason elsewhere."""

import sys

import pytest

from benchmarks import client_table


def test_a_row_has_a_number_or_a_reason_for_each_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    clients = {"transformers": client_table.with_transformers, "llama.cpp": client_table.with_llama_cpp}
    monkeypatch.setattr(client_table, "CLIENTS", clients)
    monkeypatch.setattr(sys, "argv", ["client_table", "--types", "gpt2", "bert", "mistral"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    client_table.main()
    rows = dict(line.strip("| ").split(" | ", 1) for line in capsys.readouterr().out.splitlines() if " | " in line)
    bert, reason = rows["bert"].split(" | ")
    assert float(bert) < 1e-6
    assert reason == "no: ValueError: it has no heads of classifiers, and the export refuses them"
    gpt2, mistral = rows["gpt2"].split(" | "), rows["mistral"].split(" | ")
    assert float(gpt2[0]) < 1e-6
    assert mistral[0] == "`hf` refuses"
    assert max(float(gpt2[1]), float(mistral[1])) < 1e-3
