"""Wrong arguments, as a table: each is a ValueError that names the argument, what came and what was wanted."""

import numpy as np
import pytest

import adamas

TOKENS, HEADS, GROUP, DIM, BATCH = 256, 2, 4, 64, 2


@pytest.fixture(scope="module")
def given(context):
    """Right arguments of every kind, which a case makes wrong in one place."""

    class Given:
        kernels = context.prepare(
            f"head_dim={DIM} group={GROUP} kv_type=f32 cache_form=contiguous",
            max_batch=BATCH,
            kv_heads=HEADS,
            max_tokens=TOKENS,
        )
        paged = context.prepare(
            f"head_dim={DIM} group={GROUP} kv_type=f32", max_batch=BATCH, kv_heads=HEADS, max_tokens=TOKENS
        )
        keys = np.zeros((BATCH, TOKENS, HEADS, DIM), np.float32)
        pages = np.zeros((32, 16, HEADS, DIM), np.float32)
        table = np.zeros((BATCH, 16), np.int32)
        query = np.zeros((BATCH, HEADS * GROUP, DIM), np.float32)
        out = np.zeros_like(query)
        lengths = np.full(BATCH, TOKENS, np.int32)
        thresholds = np.array([[-1, 0, 1]] * HEADS, np.float32)
        cache = kernels.cache(keys, keys)
        codes = np.zeros(kernels.code_bytes, np.uint8)
        plan = kernels.plan(BATCH)

    Given.context = context
    return Given


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def decode(**wrong):
    def call(g):
        arguments = {"query": g.query, "cache": g.cache, "codes": g.codes, "lengths": g.lengths, "out": g.out}
        g.plan.decode(**{**arguments, **{name: value(g) for name, value in wrong.items()}})

    return call


CASES = {
    # dtype
    "query f16": (
        decode(query=lambda g: g.query.astype(np.float16)),
        "query",
        "dtype float16",
        "dtype float32",
    ),
    "query f64": (decode(query=lambda g: g.query.astype(float)), "query", "dtype float64", "dtype float32"),
    "out f16": (decode(out=lambda g: g.out.astype(np.float16)), "out", "dtype float16", "dtype float32"),
    "lengths i64": (
        decode(lengths=lambda g: g.lengths.astype(np.int64)),
        "lengths",
        "dtype int64",
        "dtype int32",
    ),
    "codes i8": (decode(codes=lambda g: g.codes.view(np.int8)), "codes", "dtype int8", "dtype uint8"),
    "lse f64": (decode(lse=lambda g: np.zeros((2, 8))), "lse", "dtype float64", "dtype float32"),
    "keys bits": (lambda g: g.kernels.cache(g.keys.view(np.uint32)), "keys", "dtype uint32", "dtype float32"),
    "keys bool": (lambda g: g.kernels.cache(g.keys.astype(bool)), "keys", "dtype bool8", "dtype float32"),
    # shape
    "query rows": (
        decode(query=lambda g: g.query[:1]),
        "query",
        "shape (1, 8, 64)",
        "2 rows (batch x query_rows)",
    ),
    "query flat": (
        decode(query=lambda g: g.query.reshape(2, -1)),
        "query",
        "shape (2, 512)",
        "8 query heads",
    ),
    "out dim": (decode(out=lambda g: g.out[..., :32]), "out", "shape (2, 8, 32)", "64 elements"),
    "lengths": (decode(lengths=lambda g: g.lengths[:1]), "lengths", "shape (1,)", "(2 sequences)"),
    "codes short": (decode(codes=lambda g: g.codes[1:]), "codes", "shape (", "bytes)"),
    "positions": (
        decode(positions=lambda g: np.zeros((2, 8, 64), np.int32)),
        "positions",
        "shape (2, 8, 64)",
        "128 budget",
    ),
    "counts": (decode(counts=lambda g: np.zeros((2, 2), np.int32)), "counts", "shape (2, 2)", "8 selections"),
    "append_slots": (
        decode(append_slots=lambda g: np.zeros(3, np.int32), key_thresholds=lambda g: g.thresholds),
        "append_slots",
        "shape (3,)",
        "2 rows",
    ),
    "append without thresholds": (
        decode(append_slots=lambda g: np.zeros(2, np.int32)),
        "key_thresholds",
        "null",
        "must point",
    ),
    "starts": (decode(starts=lambda g: np.zeros(3, np.int32)), "starts", "shape (3,)", "(2 sequences)"),
    "workspace": (decode(workspace=lambda g: np.zeros(64, np.uint8)), "workspace", "shape (64,)", "bytes)"),
    "keys heads": (
        lambda g: g.kernels.cache(g.keys[:, :, :1]),
        "keys",
        "shape (2, 256, 1, 64)",
        "2 K/V heads",
    ),
    "keys tokens": (lambda g: g.kernels.cache(g.keys[:, :100]), "keys", "(2, 100, 2, 64)", ">= 256 tokens"),
    "keys pages": (lambda g: g.paged.cache(g.pages[:31]), "keys", "(31, 16, 2, 64)", ">= 32 pages"),
    "values page": (
        lambda g: g.paged.cache(g.pages, g.pages[:, :8]),
        "values",
        "(32, 8, 2, 64)",
        "16 tokens",
    ),
    "table": (lambda g: g.paged.cache(g.pages, g.pages, g.table[:, :8]), "table", "(2, 8)", ">= 16 pages"),
    "thresholds": (
        lambda g: g.kernels.encode(g.cache, g.codes, g.thresholds[:1]),
        "key_thresholds",
        "shape (1, 3)",
        "2 K/V heads",
    ),
    # strides
    "query stride": (
        decode(query=lambda g: np.zeros((2, 8, 128), np.float32)[..., ::2]),
        "query",
        "strides (1024, 128, 2)",
        "a last dimension of stride 1",
    ),
    "query order": (decode(query=lambda g: np.asfortranarray(g.query)), "query", "strides", "stride 1"),
    "query backwards": (decode(query=lambda g: g.query[::-1]), "query", "strides (-512", "strides above 0"),
    "query broadcast": (
        decode(query=lambda g: np.broadcast_to(g.query[:1], g.query.shape)),
        "query",
        "strides (0",
        "strides above 0",
    ),
    "lengths stride": (
        decode(lengths=lambda g: np.zeros(4, np.int32)[::2]),
        "lengths",
        "strides (2,)",
        "dense",
    ),
    "table slice": (
        lambda g: g.paged.cache(g.pages, g.pages, np.zeros((2, 32), np.int32)[:, :16]),
        "table",
        "strides (32, 1)",
        "dense",
    ),
    # what can't be written
    "out read-only": (decode(out=lambda g: read_only(g.out)), "out", "readonly", "can be written"),
    "codes read-only": (
        lambda g: g.kernels.encode(g.cache, read_only(g.codes), g.thresholds),
        "codes",
        "readonly",
        "can be written",
    ),
    # combinations
    "no values": (decode(cache=lambda g: g.kernels.cache(g.keys)), "cache", "without values", "values="),
    "no table": (
        lambda g: g.paged.plan(2).decode(g.query, g.paged.cache(g.pages, g.pages), g.codes, g.lengths, g.out),
        "cache",
        "without table",
        "table=",
    ),
    "small batch": (
        decode(cache=lambda g: g.kernels.cache(g.keys[:1], g.keys[:1])),
        "cache",
        "of 1 sequences",
        "2",
    ),
    "table unwanted": (lambda g: g.kernels.cache(g.keys, g.keys, g.table), "table", "an array", "contiguous"),
    "scale unwanted": (
        lambda g: g.kernels.cache(g.keys, key_scale=g.thresholds),
        "key_scale",
        "an array",
        "f8e4m3fn",
    ),
    "indptr unwanted": (
        lambda g: g.paged.cache(g.pages, indptr=g.lengths),
        "indptr",
        "an array",
        "block_table",
    ),
    "no keys": (lambda g: g.kernels.cache(), "keys", "None", "an array"),
    "count beyond": (
        lambda g: g.kernels.encode(g.cache, g.codes, g.thresholds, first_slot=500, count=13),
        "count",
        "13",
        "12 slots",
    ),
    "count and slots": (
        lambda g: g.kernels.encode(g.cache, g.codes, g.thresholds, slots=g.lengths, count=1),
        "count",
        "1",
        "None",
    ),
    "slots of a part": (
        lambda g: g.kernels.encode(g.kernels.cache(g.keys[:1]), g.codes, g.thresholds, slots=g.lengths),
        "slots",
        "256 slots",
        "512",
    ),
    "no workspace": (
        lambda g: g.kernels.plan(2, own_workspace=False).decode(g.query, g.cache, g.codes, g.lengths, g.out),
        "workspace",
        "None",
        "an array",
    ),
    "samples": (
        lambda g: g.context.calibrate("head_dim=64 kv_type=f32", g.query[0]),
        "keys",
        "(8, 64)",
        "64 elements",
    ),
    "samples' type": (
        lambda g: g.context.calibrate("head_dim=64", g.query),
        "keys",
        "dtype float32",
        "dtype float16",
    ),
    "query samples": (
        lambda g: g.context.calibrate("head_dim=64 kv_type=f32 estimator=manhattan", g.query),
        "queries",
        "None",
        "manhattan",
    ),
    # what the library itself says
    "scale": (decode(scale=lambda g: -1.0), "scale", "-1", "positive"),
    "batch": (lambda g: g.kernels.plan(3), "plan.batch", "3", "max_batch"),
    "budget": (
        lambda g: g.context.prepare("budget=0", max_batch=1, kv_heads=1, max_tokens=1),
        "budget",
        "0",
        "",
    ),
    "key": (lambda g: g.context.prepare("heads=3", max_batch=1, kv_heads=1, max_tokens=1), "heads", "", ""),
    "capacity": (
        lambda g: g.context.prepare("", max_batch=0, kv_heads=1, max_tokens=1),
        "capacity.max_batch",
        "0",
        "",
    ),
    "policy": (lambda g: adamas.Context("cpu", compile="never"), "compile", "'never'", "'deny'"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_argument(given, case):
    call, name, came, wanted = CASES[case]
    with pytest.raises(ValueError) as raised:
        call(given)
    error = raised.value
    assert isinstance(error, adamas.InvalidArgument)
    assert error.field == name and name in str(error), str(error)
    assert came in str(error) and wanted in str(error), str(error)


def test_right_arguments_pass(given):
    decode()(given)
    decode(lse=lambda g: np.zeros((2, 8), np.float32))(given)
    decode(query=lambda g: read_only(g.query))(given)
    decode(query=lambda g: np.zeros((2, 9, 64), np.float32)[:, :8])(given)


@pytest.mark.parametrize("thing", [[1.0], "text", 3, object()])
def test_what_is_no_array(given, thing):
    with pytest.raises(TypeError, match="query"):
        decode(query=lambda g: thing)(given)


def test_another_device(given):
    class OnGpu:  # a producer that says it is on a GPU
        def __dlpack_device__(self):
            return (2, 1)

        def __dlpack__(self, *, stream=None, max_version=None):
            assert stream == -1
            return given.query.__dlpack__(max_version=max_version)

    decode(query=lambda g: OnGpu())(given)  # the capsule decides, and this one's memory is the CPU's
    with pytest.raises(ValueError, match="device"):
        adamas.Context("tpu")
