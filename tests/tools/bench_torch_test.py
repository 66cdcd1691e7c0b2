"""tools/bench_torch.py with a stand-in for PyTorch that has a clock of its own: shapes, buffers in turn, the fastest
variant, what is skipped and why, and the lines it prints."""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import types
import unittest

SCRIPT = pathlib.Path(__file__).parents[2] / "tools" / "bench_torch.py"
spec = importlib.util.spec_from_file_location("bench_torch", SCRIPT)
bench_torch = importlib.util.module_from_spec(spec)
sys.modules["bench_torch"] = bench_torch
spec.loader.exec_module(bench_torch)


class Tensor:
    def __init__(self, shape):
        self.shape = tuple(shape)

    def view(self, *shape):
        return Tensor(shape)


class StandIn:
    """torch, as far as the script uses it. A step takes the microseconds of (backend, layout); a missing one fails."""

    def __init__(self, microseconds):
        self.microseconds = microseconds
        self.now = 0.0
        self.backend = None
        self.capturing = None
        self.keys_captured = []

    def attention(self, query, key, _value, enable_gqa=False):
        batch, kv_heads, _, head_dim = key.shape
        layout = "gqa" if enable_gqa else "plain" if query.shape[2] == 1 else "packed"
        if layout == "packed":
            assert query.shape == (batch, kv_heads, 4, head_dim), query.shape
        if (self.backend, layout) not in self.microseconds:
            raise RuntimeError(f"No available kernel for {layout}.\nAborting.")
        if self.capturing is None:
            self.now += 1e6  # a first call makes plans
        else:
            self.capturing.work += self.microseconds[self.backend, layout]
            self.keys_captured.append(key)

    def module(self):
        fake = self

        class Graph:
            def __init__(self):
                self.work = 0.0

            def replay(self):
                fake.now += self.work

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing
                self.at = None

            def record(self):
                self.at = fake.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return (end.at - self.at) / 1e3

        @contextlib.contextmanager
        def capture(graph):
            fake.capturing = graph
            yield
            fake.capturing = None

        @contextlib.contextmanager
        def kernel(backend):
            fake.backend = backend
            yield

        torch = types.ModuleType("torch")
        torch.__version__ = "0.0"
        torch.float16 = torch.bfloat16 = "half"
        torch.manual_seed = lambda seed: None
        torch.randn = lambda shape, device, dtype: Tensor(shape)
        torch.cuda = types.SimpleNamespace(
            is_available=lambda: True, get_device_name=lambda: "stand-in", synchronize=lambda: None,
            Stream=object, stream=lambda stream: contextlib.nullcontext(), CUDAGraph=Graph, graph=capture, Event=Event)
        torch.backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: 1))
        torch.nn = types.ModuleType("torch.nn")
        torch.nn.functional = types.SimpleNamespace(scaled_dot_product_attention=self.attention)
        attention = types.ModuleType("torch.nn.attention")
        attention.SDPBackend = types.SimpleNamespace(FLASH_ATTENTION="flash", CUDNN_ATTENTION="cudnn")
        attention.sdpa_kernel = kernel
        return {"torch": torch, "torch.nn": torch.nn, "torch.nn.attention": attention}


def run(words, stand_in=None, stdin=""):
    """Exit code, stdout and stderr of the script."""
    modules = stand_in.module() if stand_in else {"torch": None}  # None: the import fails
    before = {name: sys.modules.get(name) for name in modules}
    out, err, real_stdin = io.StringIO(), io.StringIO(), sys.stdin
    sys.modules.update(modules)
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = bench_torch.main(words)
            except SystemExit as exit_:
                code = exit_.code
    finally:
        sys.stdin = real_stdin
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name)
            else:
                sys.modules[name] = module
    return code, out.getvalue(), err.getvalue()


class BenchTorch(unittest.TestCase):
    def test_the_fastest_variant_is_printed_and_the_rest_told(self):
        stand_in = StandIn({("flash", "gqa"): 60, ("flash", "packed"): 55, ("cudnn", "gqa"): 70})
        code, out, err = run(["--shape", "batch=1,query_heads=32,kv_heads=8,tokens=32768"], stand_in)
        self.assertEqual(code, 0)
        line = json.loads(out)
        self.assertEqual(line["backend"], "flash packed")
        for name in ("us", "us_p10", "us_p90"):
            self.assertAlmostEqual(line[name], 55)
        self.assertEqual((line["batch"], line["query_heads"], line["kv_heads"], line["tokens"], line["head_dim"]),
                         (1, 32, 8, 32768, 128))
        self.assertIn("cudnn packed       skipped: No available kernel for packed.\n", err)
        self.assertIn("efficient gqa      skipped:", err)  # this version does not know the backend
        self.assertIn("flash gqa              60.00 us", err)

    def test_steps_take_every_buffer_in_turn(self):
        stand_in = StandIn({("flash", "plain"): 50})
        code, _, _ = run(["--shape", "query_heads=8,kv_heads=8,tokens=8192"], stand_in)
        self.assertEqual(code, 0)
        keys = stand_in.keys_captured
        count = len(set(map(id, keys)))
        self.assertEqual(count, 9)  # 33.5 MB each
        self.assertGreaterEqual(len(keys), 64)
        self.assertEqual(len(keys) % count, 0)
        self.assertTrue(all(key is keys[i % count] for i, key in enumerate(keys)))

    def test_buffers_are_bounded_by_memory(self):
        shape = bench_torch.parse_shape("batch=1,query_heads=32,kv_heads=8,tokens=32768")
        self.assertEqual(shape.bytes, 2 * 8 * 32768 * 128 * 2)
        self.assertEqual(bench_torch.rotated_buffers(shape, 20e9), 3)
        self.assertEqual(bench_torch.rotated_buffers(shape, 2e8), 1)
        self.assertEqual(bench_torch.rotated_buffers(shape, 1), 1)

    def test_shapes_of_bench_are_read_once_each_without_ragged_ones(self):
        lines = [json.dumps({"batch": 1, "query_heads": 32, "kv_heads": 8, "tokens": tokens, "ragged": ragged,
                             "head_dim": 128, "value_dim": value_dim, "budget": 128, "kv_type": "bf16"})
                 for tokens, ragged, value_dim in [(64, False, 128), (64, False, 128), (64, True, 128), (65, False, 64)]]
        code, out, err = run(["--shapes", "-"], StandIn({("cudnn", "gqa"): 1}), "\n".join(lines) + "\n\n")
        self.assertEqual(code, 0)
        self.assertEqual([json.loads(line)["tokens"] for line in out.splitlines()], [64])
        self.assertIn("2 shapes left out", err)

    def test_nothing_to_time_or_to_time_with_is_a_failure_that_says_so(self):
        code, out, err = run(["--shape", "tokens=64"], StandIn({}))
        self.assertEqual((code, out), (1, ""))
        self.assertIn("skipped: No available kernel", err)
        code, _, err = run(["--shape", "tokens=64"])
        self.assertEqual(code, 1)
        self.assertIn("PyTorch is missing", err)
        for words in ([], ["--shape", "foo=1"], ["--shape", "tokens=x"], ["--shape", "tokens=0"],
                      ["--shape", "query_heads=3,kv_heads=2"], ["--shape", "kv_type=f64"], ["--shapes", "/nowhere"]):
            with self.subTest(words):
                self.assertEqual(run(words)[0], 2)


if __name__ == "__main__":
    unittest.main()
