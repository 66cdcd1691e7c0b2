"""Every operation on NumPy arrays against the oracle, in the cache forms that hosts bring."""

import numpy as np
import pytest

import adamas
import oracle
from conftest import make_layer

BUDGET = 128
LENGTHS = [400, 130, 60, 0]  # sparse, barely sparse, short, padded


def prepared(context, layer, form="cache_form=contiguous", **options):
    batch, tokens, kv_heads, dim = layer.keys.shape
    spec = f"head_dim={dim} group={layer.query.shape[1] // kv_heads} kv_type={layer.kv_type} {form}"
    return context.prepare(spec, max_batch=batch, kv_heads=kv_heads, max_tokens=tokens, **options)


def run(kernels, cache, layer, counters=None, **options):
    codes = np.zeros(kernels.code_bytes, np.uint8)
    kernels.encode(cache, codes, layer.thresholds, counters=counters)
    out = np.full(layer.query.shape, 7, layer.query.dtype)
    kernels.plan(len(layer.lengths)).decode(
        layer.query, cache, codes, layer.lengths, out, counters=counters, **options
    )
    return codes, out


def paged(layer, page=16, spare=3, seed=1):
    """K and V of a layer in shuffled pages: keys, values, table."""
    batch, tokens = layer.keys.shape[:2]
    pages = -(-tokens // page)
    order = np.random.default_rng(seed).permutation(batch * pages + spare)[: batch * pages]
    table = order.reshape(batch, pages).astype(np.int32)
    stores = []
    for rows in (layer.keys, layer.values):
        store = np.zeros((batch * pages + spare, page) + rows.shape[2:], rows.dtype)
        for b in range(batch):
            for t in range(tokens):
                store[table[b, t // page], t % page] = rows[b, t]
        stores.append(store)
    return *stores, table


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("group", [1, 4])
def test_contiguous(context, kv_type, group):
    layer = make_layer(LENGTHS, group=group, kv_type=kv_type)
    kernels = prepared(context, layer)
    counters = context.counters()
    codes, out = run(kernels, kernels.cache(layer.keys, layer.values), layer, counters)
    layer.check(out, BUDGET)
    counted = counters.read()
    heads = layer.query.shape[1]
    assert counted["rows"] == 3 * heads and counted["dense_short"] == heads and counted["status"] == 0
    assert counted["tokens_attended"] == heads * (128 + 128 + 60)
    assert counted["tokens_encoded"] == layer.keys.shape[0] * layer.keys.shape[1] * layer.keys.shape[2]
    counters.clear()
    assert set(counters.read().values()) == {0}


def test_codes_are_the_contracts(context):
    layer = make_layer([96], kv_heads=3, dim=128, kv_type="f16", group=1)
    kernels = prepared(context, layer)
    codes, _ = run(kernels, kernels.cache(layer.keys, layer.values), layer)
    exported = np.empty((96, 3, 128), np.uint8)
    kernels.export_codes(codes, exported)
    assert np.array_equal(exported, oracle.codes(layer.exact[1][0], layer.thresholds))
    again = np.zeros_like(codes)
    kernels.import_codes(again, exported)
    part = np.empty((32, 3, 128), np.uint8)
    kernels.export_codes(again, part, first_slot=64)
    assert np.array_equal(part, exported[64:])


@pytest.mark.parametrize("estimator", ["dot", "manhattan"])
def test_select_then_attend(context, estimator):
    layer = make_layer([300, 257])
    kernels = prepared(context, layer, f"cache_form=contiguous estimator={estimator}")
    thresholds = np.array([[-0.3, 0, 0.3]] * 2, np.float32) if estimator == "manhattan" else None
    cache = kernels.cache(layer.keys, layer.values)
    codes = np.zeros(kernels.code_bytes, np.uint8)
    kernels.encode(cache, codes, layer.thresholds)
    plan = kernels.plan(2)
    assert (plan.rows, plan.selections, plan.batch) == (2, 8, 2)
    positions = np.empty((2, 8, BUDGET), np.int32)
    counts = np.empty((2, 8), np.int32)
    scores = np.empty((2, 8, 300), np.int32)
    plan.select(
        layer.query,
        cache,
        codes,
        layer.lengths,
        positions,
        counts,
        scores=scores,
        query_thresholds=thresholds,
    )
    wanted, lse_wanted, chosen = layer.answer(BUDGET, estimator=estimator, query_thresholds=thresholds)
    assert (counts == BUDGET).all()
    for b in range(2):
        for h in range(8):
            assert np.array_equal(positions[b, h], chosen[b][h])
    out = np.empty_like(layer.query)
    lse = np.empty((2, 8), np.float32)
    plan.attend(layer.query, cache, layer.lengths, positions, counts, out, lse=lse)
    layer.check(out, BUDGET, estimator=estimator, query_thresholds=thresholds)
    assert np.allclose(lse, lse_wanted, atol=1e-4)
    plan.dense(layer.query, cache, layer.lengths, out)
    layer.check(out, 10_000)


def test_hosts_strides_and_starts(context):
    """Hugging Face's [batch, heads, tokens, dim], left-padded: a transposed view and starts, without a copy."""
    layer = make_layer([300, 200], tokens=300)
    keys, values = (np.ascontiguousarray(rows.transpose(0, 2, 1, 3)) for rows in (layer.keys, layer.values))
    for store, rows in ((keys, layer.keys), (values, layer.values)):
        store[1, :, 100:] = rows[1, :200].transpose(1, 0, 2)
    kernels = prepared(context, layer)
    cache = kernels.cache(keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3))
    _, out = run(kernels, cache, layer, starts=np.array([0, 100], np.int32))
    layer.check(out, BUDGET)


def test_row_budgets_and_dense_below(context):
    layer = make_layer([300, 300])
    kernels = prepared(context, layer)
    cache = kernels.cache(layer.keys, layer.values)
    _, out = run(kernels, cache, layer, row_budgets=np.array([64, 64], np.int32))
    layer.check(out, 64)
    codes, _ = run(kernels, cache, layer)
    kernels.plan(2, dense_below=300).decode(layer.query, cache, codes, layer.lengths, out)
    layer.check(out, 10_000)


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_block_table(context, kv_type):
    layer = make_layer(LENGTHS, kv_type=kv_type)
    keys, values, table = paged(layer)
    kernels = prepared(context, layer, "cache_form=block_table", max_slots=keys.shape[0] * 16)
    cache = kernels.cache(keys, values, table)
    _, out = run(kernels, cache, layer)
    layer.check(out, BUDGET)


def needs_compiler(context, layer, form, **options):
    try:
        return prepared(context, layer, form, **options)
    except adamas.Error as error:
        assert error.status == "unavailable" and "llvm-19-dev" in str(error)
        pytest.skip("no CPU compiler here")


@pytest.mark.parametrize("form", ["slots", "csr", "pointers", "split", "packed"])
def test_other_forms(context, form):
    layer = make_layer(LENGTHS)
    keys, values, table = paged(layer)
    slots = keys.shape[0] * 16
    if form == "slots":
        kernels = needs_compiler(context, layer, "cache_form=slots", max_slots=slots)
        positions = np.arange(layer.keys.shape[1])
        slot_table = np.ascontiguousarray(table[:, positions // 16] * 16 + positions % 16, np.int32)
        cache = kernels.cache(keys.reshape(-1, 2, 64), values.reshape(-1, 2, 64), slot_table)
    elif form == "csr":
        kernels = needs_compiler(context, layer, "cache_form=csr", max_slots=slots)
        ends = (np.arange(len(LENGTHS) + 1) * table.shape[1]).astype(np.int32)
        cache = kernels.cache(keys, values, table.reshape(-1), indptr=ends)
    elif form == "pointers":
        kernels = needs_compiler(context, layer, "cache_form=pointers", max_slots=slots)
        both = np.stack([keys, values], 1)  # [page, K or V, token, head, dim]
        addresses = (both.ctypes.data + np.arange(len(both)) * both[0].nbytes).astype(np.int64)
        strides = (keys.strides[1] // 4, keys.strides[2] // 4)
        cache = kernels.cache(
            page_addresses=addresses,
            table=table,
            value_offset=both[0, 0].nbytes,
            key_strides=strides,
            value_strides=strides,
        )
    elif form == "split":
        kernels = needs_compiler(context, layer, "cache_form=block_table tables=split", max_slots=slots)
        turned = np.roll(values, 1, axis=0)
        cache = kernels.cache(keys, turned, table, value_table=((table + 1) % len(keys)).astype(np.int32))
    else:
        kernels = needs_compiler(context, layer, "cache_form=contiguous", max_slots=4 * 400)
        cache = kernels.cache(layer.keys.reshape(-1, 2, 64), layer.values.reshape(-1, 2, 64))
    options = {"starts": (np.arange(4) * 400).astype(np.int32)} if form == "packed" else {}
    _, out = run(kernels, cache, layer, **options)
    layer.check(out, BUDGET)


def test_calibrate(context):
    layer = make_layer([500], kv_heads=3, group=1)
    spec = adamas.Spec(head_dim=64, kv_type="f32", estimator="manhattan")
    key, query = context.calibrate(spec, layer.keys[0], layer.query)
    sigma = np.sqrt((oracle.rotate(layer.exact[1][0]).astype(np.float64) ** 2).mean((0, 2)))
    assert np.allclose(key, sigma[:, None] * np.array([-0.9816, 0, 0.9816]), rtol=1e-5)
    assert query.shape == (3, 3) and (query[:, 2] > 0).all()


def test_code_cache_follows_block_tables(context):
    """Sequences grow, one ends, its pages go to another: answers stay those of K as it is."""
    layer = make_layer([200, 150, 180], tokens=208, seed=5)
    page, pages = 16, 30
    kernels = prepared(context, layer, "cache_form=block_table", max_slots=pages * page)
    keys = np.zeros((pages, page, 2, 64), np.float32)
    values = np.zeros_like(keys)
    counters = context.counters()
    codes = adamas.CodeCache(kernels, keys, values, layer.thresholds, counters=counters)
    free = list(range(pages))[::-1]
    table = np.zeros((3, 13), np.int32)

    def write(row, source, first, last):
        for token in range(first, last):
            if token % page == 0:
                table[row, token // page] = free.pop()
            keys[table[row, token // page], token % page] = layer.keys[source, token]
            values[table[row, token // page], token % page] = layer.values[source, token]

    def decode(rows, sources):
        plan = kernels.plan(len(rows))
        lengths = layer.lengths[sources]
        out = np.empty((len(rows), 8, 64), np.float32)
        codes.decode(plan, layer.query[sources], np.ascontiguousarray(table[rows]), lengths, out)
        part = make_layer([1])  # only to borrow its check
        part.lengths, part.exact, part.thresholds = (
            lengths,
            tuple(x[sources] for x in layer.exact),
            layer.thresholds,
        )
        part.check(out, BUDGET)

    for row in (0, 1):  # prefill by pages, then token by token
        write(row, row, 0, layer.lengths[row] - 3)
        codes.encode_pages(table[row, : -(-int(layer.lengths[row]) // page)])
    for step in range(3):
        now = np.array([layer.lengths[row] - 2 + step for row in (0, 1)], np.int32)
        for row in (0, 1):
            write(row, row, now[row] - 1, now[row])
        codes.append(table[:2], now)
    decode([0, 1], [0, 1])

    free.extend(table[0])  # sequence 0 ends; its pages serve sequence 2
    write(2, 2, 0, 180)
    codes.append(table[2:], np.array([180], np.int32), 180)
    decode([1, 2], [1, 2])
    before = codes.codes.copy()
    codes.rebuild()
    used = np.zeros(pages, bool)
    used[table[1, :10]] = used[table[2, :12]] = True
    exported = [np.empty((pages * page, 2, 64), np.uint8) for _ in range(2)]
    for bytes_, source in zip(exported, (before, codes.codes)):
        kernels.export_codes(source, bytes_)
    tokens = np.zeros(pages * page, bool)
    for row, length in ((1, 150), (2, 180)):
        for token in range(length):
            tokens[table[row, token // page] * page + token % page] = True
    assert np.array_equal(exported[0][tokens], exported[1][tokens])
    assert counters.read()["status"] == 0


def test_decode_appends(context):
    layer = make_layer([300, 41])
    kernels = prepared(context, layer, "cache_form=block_table", max_slots=40 * 16)
    keys, values, table = paged(layer, spare=40 - 2 * -(-layer.keys.shape[1] // 16))
    cache = kernels.cache(keys, values, table)
    want_codes, want = run(kernels, cache, layer)
    last = np.array(layer.lengths, np.int32) - 1
    slots = table[np.arange(2), last // 16] * 16 + last % 16
    codes = want_codes.copy()
    exported = np.zeros((1, layer.keys.shape[2], layer.keys.shape[3]), np.uint8)
    for slot in slots:  # as if the newest tokens had none yet
        kernels.import_codes(codes, exported, first_slot=int(slot))
    assert not np.array_equal(codes, want_codes)
    counters = context.counters()
    out = np.zeros_like(layer.query)
    kernels.plan(2).decode(
        layer.query,
        cache,
        codes,
        layer.lengths,
        out,
        append_slots=slots.astype(np.int32),
        key_thresholds=layer.thresholds,
        counters=counters,
    )
    assert np.array_equal(out, want) and np.array_equal(codes, want_codes)
    assert counters.read()["tokens_encoded"] == 2 * layer.keys.shape[2]


def test_inert_slots_of_the_code_cache(context):
    layer = make_layer([40], tokens=208)
    kernels = prepared(context, layer, "cache_form=block_table", max_slots=13 * 16)
    keys, values, table = paged(layer, spare=0)
    codes = adamas.CodeCache(kernels, keys, values, layer.thresholds)
    assert codes.slots(table, np.array([[-1, 0, 17]], np.int32)).tolist() == [
        [-1, table[0, 0] * 16, table[0, 1] * 16 + 1]
    ]
    codes.append(table, np.array([0], np.int32), 4)
    codes.encode_pages(np.array([-1], np.int32))
    assert not codes.codes.any()


def test_codes_out_of_step_are_found_and_mended(context):
    layer = make_layer([150, 90])
    kernels = prepared(context, layer, "cache_form=block_table", max_slots=23 * 16)
    keys, values, table = paged(layer)
    counters = context.counters()
    codes = adamas.CodeCache(kernels, keys, values, layer.thresholds, counters=counters)
    codes.rebuild()
    assert not codes.check().any()
    right = codes.codes.copy()

    page = int(table[1, 2])
    keys[page, 5, 1] = -keys[page, 5, 1]  # rewritten behind the codes' back
    stale = codes.check()
    assert stale.shape == keys.shape[:3] and np.argwhere(stale).tolist() == [[page, 5, 1]]
    counted = counters.read()
    assert counted["tokens_stale"] == 1 and counted["tokens_checked"] == 2 * stale.size
    assert np.array_equal(codes.codes, right)

    cache = kernels.cache(keys, values)
    slots = np.array([page * 16 + 5, -1, page * 16 + 6], np.int32)
    found = np.full((3, 2), 7, np.uint8)
    kernels.rebuild(cache, codes.codes, layer.thresholds, slots=slots, stale=found)
    assert found.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert not codes.check().any()
    with pytest.raises(ValueError, match="counters"):
        kernels.check(cache, codes.codes, layer.thresholds)
    with pytest.raises(ValueError, match=r"stale: an array of shape \[2, 2\]|stale.*2"):
        kernels.check(cache, codes.codes, layer.thresholds, slots=slots, stale=found[:2])
