"""Hugging Face models on a GPU: logits against dense, steps in a CUDA graph against eager ones, compiled steps."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

from adamas import hf  # noqa: E402
from test_hf import GREEDY, make, prompt  # noqa: E402


@pytest.fixture()
def model():
    return make("llama").to("cuda:0", torch.float16)


def on_gpu(inputs):
    return {name: value.cuda() for name, value in inputs.items()}


def test_budget_of_all_is_dense(model):
    """A left-padded batch, teacher-forced: the logits of every step are dense attention's."""
    inputs = on_gpu(prompt())
    steps = 8
    with torch.no_grad():
        tokens = model.generate(**inputs, **{**GREEDY, "max_new_tokens": steps})
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(tokens[:, -steps:])], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        exact = model(tokens, attention_mask=mask, position_ids=places, use_cache=False).logits[:, -steps:]
        hf.enable(model, budget=256, dense_layers=1)
        cache = hf.Cache(model, 256)
        model(**inputs, position_ids=places[:, :-steps], past_key_values=cache)
        for step in range(steps):
            last = tokens.shape[1] - steps + step + 1
            logits = model(
                tokens[:, last - 1 : last],
                attention_mask=mask[:, :last],
                position_ids=places[:, last - 1 : last],
                past_key_values=cache,
            ).logits[:, -1]
            error = (logits - exact[:, step]).float().norm() / exact[:, step].float().norm()
            assert error < 2e-2
    assert hf.counters(model)["status"] == 0


def test_generate_runs_sparse(model):
    hf.enable(model, budget=128, dense_layers=1)
    model.generate(**on_gpu(prompt(tokens=400)), **GREEDY)
    counted = hf.counters(model)
    assert counted["rows"] == 19 * 4 * 4 * 2 and counted["tokens_scanned"] > 0
    assert counted["dense_requested"] == 19 * 4 * 2 and counted["status"] == 0


def test_graph_replays_are_eager_steps(model):
    """Positions, lengths and codes move on inside the graph."""
    hf.enable(model, budget=128, dense_layers=1)
    ids = on_gpu(prompt(2, 300, (0, 0)))["input_ids"]
    steps = 6
    with torch.no_grad():
        eager, graphed = hf.Cache(model, 384), hf.Cache(model, 384)
        for cache in (eager, graphed):
            model(ids, past_key_values=cache)
        token = torch.zeros(2, 1, dtype=torch.int64, device="cuda:0")
        place = torch.full_like(token, 300)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            model(token, position_ids=place, past_key_values=graphed)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = model(token, position_ids=place, past_key_values=graphed).logits
        graphed.seek(300)

        for step in range(steps):
            token.fill_(10 + step)
            place.fill_(300 + step)
            graph.replay()
            logits = model(token, position_ids=place, past_key_values=eager).logits
            assert torch.equal(captured, logits), step
    assert int(graphed.get_seq_length()) == 300 + steps
    for ours, theirs in zip(graphed.layers, eager.layers):
        assert torch.equal(ours.step.codes, theirs.step.codes)


def test_compiled_steps(model):
    torch._dynamo.reset()
    hf.enable(model, budget=128, dense_layers=1)
    ids = on_gpu(prompt(2, 300, (0, 0)))["input_ids"]
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        caches = [hf.Cache(model, 384) for _ in range(2)]
        for cache in caches:
            model(ids, past_key_values=cache)
        for step in range(3):
            token = torch.full((2, 1), 20 + step, device="cuda:0")
            a = compiled(token, past_key_values=caches[0]).logits
            b = model(token, past_key_values=caches[1]).logits
            assert (a - b).float().norm() / b.float().norm() < 2e-2
