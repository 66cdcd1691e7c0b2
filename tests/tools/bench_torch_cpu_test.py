"""tools/bench_torch_cpu.py with stand-ins for PyTorch, its clock and `adamas bench`: formats and layouts, the fastest
variant, what is given up, medians over rounds, and what it refuses."""

import contextlib
import importlib
import io
import json
import math
import pathlib
import stat
import sys
import tempfile
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
bench = importlib.import_module("bench_torch_cpu")


class Tensor:
    def __init__(self, shape, dtype="f32"):
        self.shape, self.dtype = tuple(shape), dtype

    def view(self, *shape):
        return Tensor(shape[0] if isinstance(shape[0], tuple) else shape, self.dtype)

    def to(self, dtype):
        return Tensor(self.shape, dtype)

    def repeat(self, times):
        return Tensor((self.shape[0] * times,), self.dtype)

    def numel(self):
        return math.prod(self.shape)

    def __getitem__(self, cut):
        return Tensor((cut.stop,), self.dtype)

    def transpose(self, *_):
        return self

    def __mul__(self, _):
        return self


class StandIn:
    """torch, as far as the script uses it. A call takes the seconds of its format, and of its layout."""

    def __init__(self, seconds, broken=()):
        self.seconds, self.broken, self.now, self.calls, self.keys = seconds, broken, 0.0, [], set()

    def spend(self, query, key, layout):
        if (key.dtype, layout) in self.broken:
            raise RuntimeError(f"no {layout} here\nat line 1")
        self.calls.append((key.dtype, layout))
        self.keys.add(id(key))
        self.now += self.seconds[key.dtype, layout]
        return query

    def attention(self, query, key, _value, enable_gqa=False):
        grouped = query.shape[1] == key.shape[1] and query.shape[2] > 1
        return self.spend(query, key, "gqa" if enable_gqa else "packed" if grouped else "plain")

    def matmul(self, first, second):
        return self.spend(first, second, "matmul") if first.dtype == second.dtype else first

    def module(self):
        functional = types.SimpleNamespace(scaled_dot_product_attention=self.attention)
        return types.SimpleNamespace(
            __version__="0", float16="f16", bfloat16="bf16", float32="f32", get_num_threads=lambda: 2,
            randn=lambda *shape: Tensor(shape[0] if isinstance(shape[0], tuple) else shape), matmul=self.matmul,
            softmax=lambda x, dim: Tensor(x.shape, "softmax"), inference_mode=contextlib.nullcontext,
            nn=types.SimpleNamespace(functional=functional))


class BenchTorchCpu(unittest.TestCase):
    def measure(self, stand_in, shape="kv_heads=8,tokens=4096", formats=("f32", "f16")):
        clock = bench.time
        bench.time = types.SimpleNamespace(perf_counter=lambda: stand_in.now)
        try:
            one = bench.TorchCpuBench(stand_in.module(), memory_bytes=1e9, seconds=1.0)
            return one.measure(bench.parse_shape(shape), list(formats))
        finally:
            bench.time = clock

    def test_the_fastest_counts_and_the_hopeless_is_called_once(self):
        stand_in = StandIn({("f32", "gqa"): 0.4, ("f32", "packed"): 0.1, ("f32", "matmul"): 0.2,
                            ("f16", "gqa"): 9.0, ("f16", "packed"): 0.3, ("f16", "matmul"): 0.3})
        results = self.measure(stand_in)
        self.assertEqual(set(results), {f"{a} {b}" for a in ("f32", "f16") for b in ("gqa", "packed", "matmul")})
        name, microseconds = bench.fastest(results)
        self.assertEqual(name, "f32 packed")
        self.assertAlmostEqual(microseconds, 1e5)
        self.assertEqual(stand_in.calls.count(("f16", "gqa")), 1)
        self.assertGreaterEqual(stand_in.calls.count(("f32", "packed")), 10)
        self.assertGreater(len(stand_in.keys), 4)  # caches in turn

    def test_what_torch_or_memory_refuses_is_said(self):
        stand_in = StandIn({("f32", "plain"): 0.1, ("f32", "matmul"): 0.1}, broken=[("f32", "plain")])
        results = self.measure(stand_in, "query_heads=8,kv_heads=8,tokens=4096", ["f32"])
        self.assertEqual(results["f32"], "no plain here")
        self.assertEqual(bench.fastest(results)[0], "f32 matmul")
        results = self.measure(stand_in, "kv_heads=32,tokens=1048576", ["f32"])
        self.assertIn("do not fit --memory", results["f32"])
        with self.assertRaises(SystemExit):
            bench.fastest(results)

    def test_rounds_become_medians_and_ratios_of_their_own_round(self):
        stand_in = StandIn({(a, b): 0.1 for a in ("f32", "bf16", "f16") for b in ("gqa", "packed", "matmul")})
        line = {"us": 1000.0, "dense_us": 8000.0, "speedup": 8.0, "dense_roofline": 0.7, "read_gbps": 20.0,
                "scan_ns": 0.8, "spec": "head_dim=128"}
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "adamas"
            words = pathlib.Path(folder) / "words"
            program.write_text(f"#!/bin/sh\necho \"$@\" >>{words}\necho '{json.dumps(line)}'\n")
            program.chmod(stat.S_IRWXU)
            sys.modules["torch"] = stand_in.module()
            clock, bench.time = bench.time, types.SimpleNamespace(perf_counter=lambda: stand_in.now)
            out = io.StringIO()
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                    code = bench.main(["--adamas", str(program), "--rounds", "2", "--seconds", "0.1", "--json",
                                       "--shape", "kv_heads=8,tokens=1024"])
            finally:
                bench.time = clock
                del sys.modules["torch"]
            asked = words.read_text().splitlines()
        self.assertEqual(code, 0)
        self.assertEqual(len(asked), 2)
        self.assertIn("kv_heads=8 tokens=1024", asked[0])
        self.assertIn("group=4", asked[0])
        summary = json.loads(out.getvalue())
        self.assertAlmostEqual(summary["torch_us"]["median"], 1e5)
        self.assertAlmostEqual(summary["ratio"]["median"], 100.0)
        self.assertEqual(summary["speedup"]["median"], 8.0)

    def test_wrong_use(self):
        for words in (["--rounds", "0"], ["--types", "f64"], ["--shape", "heads=1"]):
            with self.assertRaises(SystemExit) as refused, contextlib.redirect_stderr(io.StringIO()):
                bench.main(words)
            self.assertEqual(refused.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
