"""adamas.hf.dump and evaluate on a small random model."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import numpy as np  # noqa: E402

from adamas import hf  # noqa: E402
from test_hf import make, one_thread  # noqa: E402, F401

IDS = np.random.default_rng(0).integers(3, 160, 300)


def test_dump_is_what_attention_saw(tmp_path):
    from safetensors.torch import load_file

    model = make("llama")
    assert hf.dump(model, IDS, tmp_path / "dump.safetensors", queries=16, layers=[1, 3]) == [1, 3]
    tensors = load_file(tmp_path / "dump.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items() if "3" in name} == {
        "layer3.q": (16, 4, 64),
        "layer3.k": (300, 1, 64),
        "layer3.v": (300, 1, 64),
    }
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.as_tensor(IDS)[None], past_key_values=cache)
    assert torch.allclose(tensors["layer3.k"], cache.layers[3].keys[0].transpose(0, 1), atol=1e-5)
    assert torch.allclose(tensors["layer1.v"], cache.layers[1].values[0].transpose(0, 1), atol=1e-5)
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="layers"):
        hf.dump(model, IDS, tmp_path / "none", layers=[9])


def test_command_line_reads_the_dump(tmp_path):
    import json
    import os
    import subprocess

    program = os.environ.get("ADAMAS_CLI")
    if not program or not os.access(program, os.X_OK):
        pytest.skip("the command line was not built")
    file = tmp_path / "dump.safetensors"
    hf.dump(make("llama").half(), IDS, file, queries=16, layers=[2])
    done = subprocess.run(
        [program, "eval", file, "--device", "cpu", "--budget", "128", "--estimator", "dot", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[0])
    assert row["layer"] == 2 and 0.4 < row["recall"] <= 1


@pytest.mark.parametrize("before", ["sdpa", "enabled"])
def test_evaluate(context, capsys, before):
    model = make("llama")
    if before == "enabled":
        hf.enable(model, budget=64, context=context, spec="recent=2")
    settings = getattr(model, "_adamas", None)
    rows = hf.evaluate(model, IDS, budgets=(128, 512), estimators=("dot",), decode_tokens=24, dense_layers=1)
    assert [(row["estimator"], row["budget"]) for row in rows] == [
        ("dense", None),
        ("dot", 128),
        ("dot", 512),
    ]
    dense, sparse, whole = rows
    assert dense["ratio"] == 1 and sparse["attended"] == 128
    assert 0.5 < sparse["recall"] < 1 and 0.8 < sparse["ratio"] < 1.25
    assert abs(whole["ratio"] - 1) < 1e-4 and whole["recall"] is None
    assert whole["attended"] == 288  # the mean of 277..299
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("276 tokens of prefill") and len(said) == 6
    assert getattr(model, "_adamas", None) is settings
    if before == "enabled":
        hf.disable(model)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        logits = model(torch.as_tensor(IDS)[None], use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[-25:-1], torch.as_tensor(IDS)[-24:])
    assert dense["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-4)


def test_what_text_can_be(context):
    model = make("llama")
    with pytest.raises(ValueError, match="tokenizer"):
        hf.evaluate(model, "in the beginning")
    with pytest.raises(ValueError, match="decode_tokens"):
        hf.evaluate(model, IDS[:10], decode_tokens=10)
    with pytest.raises(ValueError, match="text"):
        hf.dump(model, [1], "unused")
