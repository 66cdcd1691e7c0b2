"""The package around the calls: baseline pack, Spec, errors, threads, stubs."""

import ast
import logging
import pathlib
import threading
import time

import numpy as np
import pytest

import adamas
from conftest import make_layer


def baseline_specs():
    """Each Spec of baseline.specs, products written out."""
    for line in adamas.baseline_specs().splitlines():
        words = [word.split("=") for word in line.partition("#")[0].split()]
        specs = [""] if words else []
        for key, values in words:
            specs = [f"{spec} {key}={value}" for spec in specs for value in values.split(",")]
        yield from specs


def test_baseline_pack_is_fresh():
    """Every Spec that the package promises is in its pack, for the kernels as they are generated now."""
    context = adamas.Context("cpu", cache_dir="", packs=[], compile="deny", threads=1)
    assert context.packs == 1, "no python/adamas/baseline.pack: tools/baseline-pack makes it"
    specs = list(baseline_specs())
    assert len(specs) >= 36
    for spec in specs:
        try:
            kernels = context.prepare(spec, max_batch=1, kv_heads=1, max_tokens=64)
        except adamas.Error as error:
            pytest.fail(f"python/adamas/baseline.pack is stale: run tools/baseline-pack. {error}")
        assert kernels.compiles == 0
    counters = context.cache_counters
    assert counters["compiles"] == 0 and counters["hits_pack"] > 0


def test_other_specs_name_what_to_install():
    context = adamas.Context("cpu", cache_dir="", packs="", compile="deny", threads=1)
    assert context.packs == 0
    with pytest.raises(adamas.Error, match="precompile") as raised:
        context.prepare("head_dim=80", max_batch=1, kv_heads=1, max_tokens=64)
    assert raised.value.status == "unavailable"


def test_missing_compiler_names_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAMAS_CC", str(tmp_path / "none"))
    context = adamas.Context("cpu", cache_dir="", compile="allow", threads=1)
    with pytest.raises(adamas.Error, match="apt-get install llvm-19-dev") as raised:
        context.prepare("head_dim=80 group=7", max_batch=1, kv_heads=1, max_tokens=64)
    assert raised.value.status == "unavailable" and "libclang-cpp19-dev" in raised.value.hint
    context.prepare("head_dim=64", max_batch=1, kv_heads=1, max_tokens=64)  # of the pack: needs none


def test_spec_text():
    spec = adamas.Spec(head_dim=64, group=4, lse=False, estimator="dot")
    assert str(spec) == "head_dim=64 estimator=dot group=4 lse=off"
    assert adamas.Spec.parse(str(spec)) == spec
    assert adamas.Spec.parse("") == adamas.Spec()
    for text, word in [
        ("head_dim", "head_dim"),
        ("heads=3", "heads"),
        ("lse=yes", "on or off"),
        ("budget=x", "number"),
    ]:
        with pytest.raises(ValueError, match=word):
            adamas.Spec.parse(text)


def test_spec_has_the_librarys_keys(context):
    kernels = context.prepare("head_dim=64", max_batch=1, kv_heads=1, max_tokens=64)
    parsed = adamas.Spec.parse(kernels.spec)
    assert str(parsed).split() == kernels.spec.split()


def test_context_says_what_it_is(context):
    assert context.device == "cpu" and context.device_name and context.target
    assert context.compile in ("allow", "deny", "background")
    context.synchronize()
    with pytest.raises(adamas.Error):
        adamas.Context("cuda:63")


def test_warnings_go_to_logging(caplog, tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)  # kernels are code: no folder that others may write
    with caplog.at_level(logging.WARNING, "adamas"):
        context = adamas.Context("cpu", cache_dir=folder, threads=1)
        context.prepare("head_dim=64", max_batch=1, kv_heads=1, max_tokens=64)
    assert any(str(folder) in record.getMessage() for record in caplog.records)
    assert context.cache_dir == ""


def test_a_pack_that_the_group_may_write_is_mended(monkeypatch, tmp_path):
    import shutil

    from adamas import _context

    for name in ("baseline.pack", "baseline.specs"):
        shutil.copy(pathlib.Path(adamas.__file__).parent / name, tmp_path / name)
    (tmp_path / "baseline.pack").chmod(0o664)  # what umask 002 leaves
    monkeypatch.setattr(_context, "_FOLDER", tmp_path)
    assert adamas.Context("cpu", cache_dir="", packs=[], threads=1).packs == 1


def test_the_gil_is_released(context):
    layer = make_layer([20000], kv_heads=1, group=1)
    kernels = context.prepare(
        "head_dim=64 kv_type=f32 cache_form=contiguous", max_batch=1, kv_heads=1, max_tokens=20000
    )
    cache = kernels.cache(layer.keys, layer.values)
    codes = np.zeros(kernels.code_bytes, np.uint8)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    longest = 0.0
    for _ in range(20):  # one of them is enough to be sure: a tick in the midst of a call
        start = time.perf_counter()
        kernels.encode(cache, codes, layer.thresholds)
        end = time.perf_counter()
        inside = [t for t in ticks if start < t < end]
        if inside:
            longest = max(longest, inside[-1] - inside[0])
    done.set()
    thread.join()
    assert longest > 0


def test_threads_share_kernels_and_have_their_own_plans(context):
    layer = make_layer([300])
    kernels = context.prepare(
        "head_dim=64 group=4 kv_type=f32 cache_form=contiguous", max_batch=1, kv_heads=2, max_tokens=300
    )
    cache = kernels.cache(layer.keys, layer.values)
    codes = np.zeros(kernels.code_bytes, np.uint8)
    kernels.encode(cache, codes, layer.thresholds)
    outs = [np.zeros((1, 8, 64), np.float32) for _ in range(4)]

    def work(out):
        plan = kernels.plan(1)
        for _ in range(20):
            plan.decode(layer.query, cache, codes, layer.lengths, out)

    threads = [threading.Thread(target=work, args=(out,)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out in outs:
        assert np.array_equal(out, outs[0])
    layer.check(outs[0], 128)


def test_arrays_live_as_long_as_their_cache(context):
    layer = make_layer([300])
    kernels = context.prepare(
        "head_dim=64 group=4 kv_type=f32 cache_form=contiguous", max_batch=1, kv_heads=2, max_tokens=300
    )
    cache = kernels.cache(layer.keys.copy(), layer.values.copy())
    rubbish = [np.full_like(layer.keys, 9) for _ in range(4)]
    codes = np.zeros(kernels.code_bytes, np.uint8)
    kernels.encode(cache, codes, layer.thresholds)
    out = np.zeros_like(layer.query)
    plan = kernels.plan(1)
    del kernels, rubbish
    plan.decode(layer.query, cache, codes, layer.lengths, out)
    layer.check(out, 128)


def test_handles_outlive_their_context():
    context = adamas.Context("cpu", threads=1)
    kernels = context.prepare(
        "head_dim=64 cache_form=contiguous kv_type=f32", max_batch=1, kv_heads=1, max_tokens=64
    )
    counters = context.counters()
    del context
    plan = kernels.plan(1)
    assert plan.rows == 1 and counters.read()["rows"] == 0


def test_stubs_and_docstrings():
    folder = pathlib.Path(adamas.__file__).parent
    assert (folder / "py.typed").exists()
    tree = ast.parse((folder / "_native.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"Context", "Kernels", "Plan", "Cache", "Counters"} <= set(classes)
    for name, node in classes.items():
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                assert ast.get_docstring(member), f"{name}.{member.name} has no docstring"
    decode = next(m for m in classes["Plan"].body if getattr(m, "name", "") == "decode")
    assert "adamas._array.Array" in ast.unparse(decode.args)
    for name in adamas.__all__:
        assert isinstance(getattr(adamas, name), (int, str)) or getattr(adamas, name).__doc__, name
