"""tools/bench_hf.py on the CPU with a small model: every path but the CUDA graphs."""

import importlib.util
import json
import pathlib
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_hf import one_thread  # noqa: E402, F401


def test_a_line_of_results(monkeypatch, tmp_path, capsys):
    from transformers import AttentionInterface

    from adamas import hf
    from adamas.hf import _attention

    path = pathlib.Path(__file__).parents[2] / "tools" / "bench_hf.py"
    spec = importlib.util.spec_from_file_location("bench_hf", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    shape = dict(hidden_size=128, intermediate_size=128, num_attention_heads=8, num_key_value_heads=2, head_dim=64)
    bench.MODELS["small"] = dict(shape, num_hidden_layers=3, vocab_size=100)
    out = tmp_path / "out.jsonl"
    options = "--models small --context 512 --device cpu --dense-layers 1"
    monkeypatch.setattr(sys, "argv", ["bench_hf.py", *options.split(), "--out", str(out)])
    try:
        bench.main()
    finally:
        AttentionInterface.register(hf.NAME, _attention.attention)
    result = json.loads(out.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert result["counters"]["tokens_attended"] == 8 * (2 * 128 + 512)
    assert result["eager_ms"]["backend"].startswith("flash") and result["eager_ms"]["ratio"] > 0
    monkeypatch.setattr(sys, "argv", ["bench_hf.py", "--models", "9b"])
    with pytest.raises(SystemExit):
        bench.main()
