"""Hugging Face models of random weights: sparse decode against dense, padding, compile, beams, caches, refusals."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import adamas  # noqa: E402
from adamas import hf  # noqa: E402

SHAPE = dict(
    vocab_size=160,
    hidden_size=128,
    intermediate_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    head_dim=64,
    max_position_embeddings=1024,
)
MODELS = {
    "llama": (transformers.LlamaConfig, dict(num_key_value_heads=1)),
    "llama-mha": (transformers.LlamaConfig, dict(num_key_value_heads=4)),
    "qwen2": (transformers.Qwen2Config, dict(num_key_value_heads=1)),
    "qwen3": (transformers.Qwen3Config, dict(num_key_value_heads=4)),
    "qwen2-mixed": (
        transformers.Qwen2Config,
        dict(
            num_key_value_heads=1,
            use_sliding_window=True,
            sliding_window=90,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
    ),
    "mistral": (transformers.MistralConfig, dict(num_key_value_heads=1, sliding_window=None)),
    "mistral-window": (transformers.MistralConfig, dict(num_key_value_heads=1, sliding_window=90)),
}
GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None, max_new_tokens=20)


def make(name):
    torch.manual_seed(1)
    config, extra = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(config(**{**SHAPE, **extra}))
    with torch.no_grad():  # attention of random weights hardly matters; larger ones make tokens depend on it
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                part.weight.mul_(8)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture()
def llama():
    return make("llama")


def prompt(batch=2, tokens=200, padding=(0, 70)):
    torch.manual_seed(2)
    ids = torch.randint(3, SHAPE["vocab_size"], (batch, tokens))
    mask = torch.ones_like(ids)
    for row, pad in enumerate(padding[:batch]):
        mask[row, :pad] = 0
        ids[row, :pad] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", MODELS)
def test_budget_of_all_gives_the_dense_tokens(context, name):
    """Greedy tokens, of a left-padded batch, equal dense exactly when budget >= length; the kernels say they ran."""
    model = make(name)
    inputs = prompt()
    dense = model.generate(**inputs, **GREEDY)
    hf.enable(model, budget=256, dense_layers=1, context=context)
    assert torch.equal(model.generate(**inputs, **GREEDY), dense)
    counted = hf.counters(model)
    steps = GREEDY["max_new_tokens"] - 1
    assert counted["rows"] == steps * 4 * 4 * 2 and counted["status"] == 0
    assert counted["dense_requested"] == steps * 4 * 2 and counted["dense_short"] == steps * 4 * 2 * 3
    hf.clear_counters(model)
    assert hf.counters(model)["rows"] == 0
    hf.disable(model)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model.generate(**inputs, **GREEDY), dense)


@pytest.mark.parametrize("estimator", ["dot", "manhattan"])
def test_small_budget_is_sparse_and_close(context, llama, estimator):
    inputs = prompt(tokens=300, padding=(0, 100))
    hf.enable(llama, budget=128, estimator=estimator, dense_layers=0, context=context)
    cache = hf.Cache(llama, 320)
    full = hf.Cache(llama, 320)
    with torch.no_grad():
        llama(**inputs, past_key_values=cache)
        hf.clear_counters(llama)
        token = torch.full((2, 1), 5)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], 1)
        places = (mask.cumsum(1) - 1)[:, -1:]
        logits = llama(token, attention_mask=mask, position_ids=places, past_key_values=cache).logits
        counted = hf.counters(llama)
        assert counted["tokens_attended"] == 2 * 4 * 4 * 128 and counted["dense_short"] == 0
        assert counted["tokens_scanned"] == 4 * (301 + 201)
        hf.enable(llama, budget=512, dense_layers=4, context=context)
        full = hf.Cache(llama, 320)
        llama(**inputs, past_key_values=full)
        exact = llama(token, attention_mask=mask, position_ids=places, past_key_values=full).logits
    error = (logits - exact).norm() / exact.norm()
    assert 0 < error < 0.5


def test_codes_follow_keys(context, llama):
    """After prefill, steps and another chunk: the codes are those that encoding all of K anew gives."""
    hf.enable(llama, budget=128, context=context)
    cache = hf.Cache(llama, 256)
    with torch.no_grad():
        ids = prompt(1, 150)["input_ids"]
        llama(ids, past_key_values=cache)
        for token in range(3):
            llama(torch.tensor([[7 + token]]), past_key_values=cache)
        llama(ids[:, :40], past_key_values=cache)
        last = llama(torch.tensor([[9]]), past_key_values=cache).logits
    assert int(cache.get_seq_length()) == 194
    layer = cache.layers[3]
    before = layer.step.codes.clone()
    layer.step.codes.zero_()
    layer.encode(0, 194)
    assert torch.equal(layer.step.codes, before) and before.any()
    with torch.no_grad():
        hf.enable(llama, budget=256, dense_layers=4, context=context)
        whole = torch.cat([ids, torch.tensor([[7, 8, 9]]), ids[:, :40], torch.tensor([[9]])], 1)
        exact = llama(whole, use_cache=False).logits[:, -1:]
    assert (last - exact).norm() / exact.norm() < 0.5


def test_seek_takes_keys_from_elsewhere(context, llama):
    hf.enable(llama, budget=256, context=context)
    ids = prompt(1, 120)["input_ids"]
    first, second = hf.Cache(llama, 128), hf.Cache(llama, 128)
    with torch.no_grad():
        llama(ids, past_key_values=first)
        llama(ids[:, :2], past_key_values=second)
        for ours, theirs in zip(second.layers, first.layers):
            ours.keys.copy_(theirs.keys)
            ours.values.copy_(theirs.values)
        second.seek(120)
        token = torch.tensor([[11]])
        a, b = (llama(token, past_key_values=cache).logits for cache in (first, second))
    assert torch.allclose(a, b, atol=1e-5)
    for wrong in (0, 129):
        with pytest.raises(ValueError, match="tokens"):
            second.seek(wrong)


def test_beams_move_their_codes(context, llama):
    inputs = prompt(1, 60)
    options = {**GREEDY, "num_beams": 3}
    dense = llama.generate(**inputs, **options)
    hf.enable(llama, budget=256, context=context)
    assert torch.equal(llama.generate(**inputs, **options), dense)
    hf.enable(llama, budget=128, context=context)
    ids = prompt(2, 200)["input_ids"]
    swapped, straight = hf.Cache(llama, 256), hf.Cache(llama, 256)
    token = torch.tensor([[5], [6]])
    with torch.no_grad():
        llama(ids, past_key_values=swapped)
        swapped.reorder_cache(torch.tensor([1, 0]))
        llama(ids.flip(0), past_key_values=straight)
        a, b = (llama(token, past_key_values=cache).logits for cache in (swapped, straight))
    assert torch.allclose(a, b, atol=1e-5)
    for ours, theirs in zip(swapped.layers, straight.layers):
        assert torch.equal(ours.step.codes, theirs.step.codes)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_has_no_break(context, llama, backend):
    torch._dynamo.reset()
    hf.enable(llama, budget=128, dense_layers=1, context=context)
    ids = prompt(2, 200, (0, 0))["input_ids"]
    compiled = torch.compile(llama, fullgraph=True, backend=backend)
    with torch.no_grad():
        caches = [hf.Cache(llama, 256) for _ in range(2)]
        for cache in caches:
            llama(ids, past_key_values=cache)
        torch._dynamo.utils.counters.clear()
        for step in range(3):
            token = torch.full((2, 1), 20 + step)
            a = compiled(token, past_key_values=caches[0]).logits
            b = llama(token, past_key_values=caches[1]).logits
            assert torch.allclose(a, b, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for layers in zip(*(cache.layers for cache in caches)):
        assert torch.equal(layers[0].step.codes, layers[1].step.codes)


def test_operation_is_well_formed(context, llama):
    hf.enable(llama, budget=128, dense_layers=0, context=context)
    cache = hf.Cache(llama, 256)
    with torch.no_grad():
        llama(prompt(1, 150)["input_ids"], past_key_values=cache)
        llama(torch.tensor([[5]]), past_key_values=cache)
    layer = cache.layers[1]
    step = layer.step
    arguments = (
        torch.randn(1, 4, 64),
        layer.keys,
        layer.values,
        step.codes,
        step.slots,
        step.lengths,
        step.starts,
    )
    torch.library.opcheck(
        torch.ops.adamas.decode_step,
        (*arguments, step.handle, 0.125, 0),
        test_utils=("test_schema", "test_faketensor"),
    )
    with pytest.raises(RuntimeError, match="its cache is gone"):
        torch.ops.adamas.decode_step(*arguments, 10**9, 0.125, 0)


def test_memory_goes_with_the_cache(context, llama):
    """Without the garbage collector: a cache may be tens of gigabytes."""
    hf.enable(llama, budget=128, context=context)
    cache = hf.Cache(llama, 256)
    with torch.no_grad():
        llama(prompt(1, 150)["input_ids"], past_key_values=cache)
        llama(torch.tensor([[5]]), past_key_values=cache)
    keys, step = weakref.ref(cache.layers[2].keys), weakref.ref(cache.layers[2].step)
    gc.disable()
    try:
        del cache
        assert keys() is None and step() is None
    finally:
        gc.enable()


def test_thresholds_from_outside(context, llama, tmp_path):
    from safetensors.torch import save_file

    one = torch.tensor([[-1.0, 0.0, 1.0]])
    tensors = {f"layer{i}.key_thresholds": one * (i + 1) for i in range(4)}
    save_file(tensors, tmp_path / "thresholds.safetensors")
    for given in (tmp_path / "thresholds.safetensors", {i: one.numpy() * (i + 1) for i in range(4)}):
        hf.enable(llama, budget=128, thresholds=given, context=context)
        cache = hf.Cache(llama, 256)
        with torch.no_grad():
            llama(prompt(1, 150)["input_ids"], past_key_values=cache)
        assert torch.equal(cache.layers[3].thresholds[0], one * 4)
    hf.enable(llama, budget=128, thresholds={0: one}, context=context)
    with pytest.raises(ValueError, match="none for layer 2"), torch.no_grad():
        llama(prompt(1, 150)["input_ids"], past_key_values=hf.Cache(llama, 256))
    with pytest.raises(ValueError, match="query thresholds"):
        hf.enable(llama, estimator="manhattan", thresholds={0: one}, context=context)


def test_other_caches_stay_dense(context, llama):
    inputs = prompt()
    dense = llama.generate(**inputs, **GREEDY)
    hf.enable(llama, budget=128, context=context)
    cache = transformers.DynamicCache(config=llama.config)
    assert torch.equal(llama.generate(**inputs, **GREEDY, past_key_values=cache), dense)
    assert hf.counters(llama)["rows"] == 0
    assert torch.equal(llama.generate(**inputs, **GREEDY, use_cache=False), dense)


def test_refusals(context, llama):
    with pytest.raises(ValueError, match="not enabled"):
        hf.Cache(llama, 100)
    with pytest.raises(ValueError, match="not enabled"):
        hf.disable(llama)
    with pytest.raises(ValueError, match="budget"):
        hf.enable(llama, budget=0, context=context)
    with pytest.raises(ValueError, match="estimator"):
        hf.enable(llama, estimator="exact", context=context)
    with pytest.raises(ValueError, match="dense_layers"):
        hf.enable(llama, dense_layers=-1, context=context)
    with pytest.raises(ValueError, match="spec"):
        hf.enable(llama, spec="bucket=4", context=context)
    assert llama.config._attn_implementation == "sdpa"
    hf.enable(llama, context=context)
    right = prompt(2, 100, (0, 0))
    right["attention_mask"][1, 80:] = 0
    with pytest.raises(ValueError, match="padded on the right"), torch.no_grad():
        llama(**right, past_key_values=hf.Cache(llama, 128))
    with pytest.raises(ValueError, match="max_tokens 64"), torch.no_grad():
        llama(**prompt(1, 100), past_key_values=hf.Cache(llama, 64))
    gemma = transformers.Gemma2Config(**SHAPE, num_key_value_heads=1)
    model = transformers.AutoModelForCausalLM.from_config(gemma).eval()
    hf.enable(model, context=context)
    with pytest.raises(ValueError, match="softcap"), torch.no_grad():
        model(**prompt(1, 100), past_key_values=hf.Cache(model, 128))


def test_reset_starts_anew(context, llama):
    hf.enable(llama, budget=256, context=context)
    cache = hf.Cache(llama, 256)
    with torch.no_grad():
        llama(prompt(2, 150)["input_ids"], past_key_values=cache)
        cache.reset()
        assert cache.get_seq_length() == 0
        ids = prompt(2, 90, (0, 0))["input_ids"]
        llama(ids, past_key_values=cache)
        again = llama(torch.full((2, 1), 9), past_key_values=cache).logits
        exact = llama(torch.cat([ids, torch.full((2, 1), 9)], 1), use_cache=False).logits[:, -1:]
    assert torch.allclose(again, exact, atol=1e-4)
