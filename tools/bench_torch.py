#!/usr/bin/env python3
"""Times PyTorch's dense attention for decode: the figure that sparse decode has to beat.

One query token a sequence attends to all of its K and V through scaled_dot_product_attention, by each backend
(FlashAttention, cuDNN, memory-efficient) and, where query heads share K/V heads, in two layouts: enable_gqa, and
packed (the query heads of a K/V head as rows of one query). Steps rotate over buffers, so that nothing of a step is
left in the GPU's caches, and are replayed from a CUDA graph, timed by events.

Prints the fastest of each shape as a JSON line for `adamas bench --dense`, and all of them as a table on stderr.
"""

import argparse
import dataclasses
import json
import math
import statistics
import sys

# What must be read between two uses of a buffer so that nothing of it is left: above 4 times an H100's L2.
COLD_BYTES = 256e6
GRAPH_STEPS = 64  # enough that the gap between two replays does not count
REPLAY_SECONDS = 0.3
LEAST_REPLAYS, MOST_REPLAYS = 5, 200
ELEMENT_BYTES = 2  # f16, bf16
DTYPES = {"f16": "float16", "bf16": "bfloat16"}
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}

EXAMPLE = """examples:
  tools/bench_torch.py --shape batch=1,query_heads=32,kv_heads=8,tokens=32768 > dense.jsonl
  adamas bench --preset serving --print-shapes | tools/bench_torch.py --shapes - > dense.jsonl
  adamas bench --preset serving --dense dense.jsonl"""


@dataclasses.dataclass(frozen=True)
class Shape:
    batch: int = 1
    query_heads: int = 32
    kv_heads: int = 8
    tokens: int = 32768
    head_dim: int = 128
    kv_type: str = "f16"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name}={value}: must be a positive integer")
        if self.query_heads % self.kv_heads:
            raise ValueError(f"query_heads={self.query_heads}: must be a multiple of kv_heads {self.kv_heads}")
        if self.kv_type not in DTYPES:
            raise ValueError(f"kv_type={self.kv_type}: must be one of {', '.join(DTYPES)}")

    @property
    def bytes(self):
        """Of all K and V, which a step reads."""
        return 2 * self.batch * self.kv_heads * self.tokens * self.head_dim * ELEMENT_BYTES

    def __str__(self):
        return f"batch {self.batch}, {self.query_heads}/{self.kv_heads} heads, {self.tokens} tokens, d {self.head_dim}"


def parse_shape(text):
    """"batch=1,query_heads=32,kv_heads=8,tokens=32768"; what is left out takes its default."""
    fields = {field.name: field.type for field in dataclasses.fields(Shape)}
    values = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        if key not in fields:
            raise ValueError(f"{word}: must be one of {', '.join(fields)}, with =VALUE")
        values[key] = int(value) if fields[key] is int else value
    return Shape(**values)


def read_shapes(lines):
    """JSON lines of `adamas bench --print-shapes`: shapes once each, and how many lines have no dense time here."""
    names = [field.name for field in dataclasses.fields(Shape)]
    shapes, left_out = [], 0
    for line in filter(str.strip, lines):
        values = json.loads(line)
        if values.get("ragged") or values.get("value_dim", values.get("head_dim")) != values.get("head_dim"):
            left_out += 1
            continue
        shape = Shape(**{name: values[name] for name in names if name in values})
        if shape not in shapes:
            shapes.append(shape)
    return shapes, left_out


def rotated_buffers(shape, memory_bytes):
    """Buffers to take in turn: until a step's own data has left the caches, at most what fits."""
    wanted = 1 + math.ceil(COLD_BYTES / shape.bytes)
    return max(1, min(wanted, int(memory_bytes // shape.bytes)))


def layouts(shape):
    if shape.query_heads == shape.kv_heads:
        return ["plain"]
    return ["gqa", "packed"]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


class TorchBench:
    """The part that needs a GPU. `torch` is the module: imported late, so that help needs neither."""

    def __init__(self, torch, memory_bytes):
        self.torch = torch
        self.memory_bytes = memory_bytes

    def measure(self, shape):
        """All variants: {"cudnn packed": microseconds of each replay's step, or why there is none}."""
        torch = self.torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        torch.manual_seed(0)
        dtype = getattr(torch, DTYPES[shape.kv_type])
        cache = (shape.batch, shape.kv_heads, shape.tokens, shape.head_dim)
        count = rotated_buffers(shape, self.memory_bytes)
        buffers = [
            tuple(torch.randn(cache, device="cuda", dtype=dtype) for _ in "kv") for _ in range(count)
        ]
        query = torch.randn((shape.batch, shape.query_heads, 1, shape.head_dim), device="cuda", dtype=dtype)
        results = {}
        for name, backend in BACKENDS.items():
            for layout in layouts(shape):
                try:
                    with sdpa_kernel(getattr(SDPBackend, backend)):
                        results[f"{name} {layout}"] = self.time_steps(self.step(shape, layout, query, buffers), count)
                except (AttributeError, RuntimeError) as error:
                    results[f"{name} {layout}"] = str(error).strip().splitlines()[0]
        return results

    def step(self, shape, layout, query, buffers):
        attention = self.torch.nn.functional.scaled_dot_product_attention
        if layout == "packed":
            query = query.view(shape.batch, shape.kv_heads, shape.query_heads // shape.kv_heads, shape.head_dim)
        options = {"enable_gqa": True} if layout == "gqa" else {}
        return lambda i: attention(query, *buffers[i % len(buffers)], **options)

    def time_steps(self, step, buffers):
        torch = self.torch
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # plans and workspaces are made here, not under capture
            for i in range(3):
                step(i)
        torch.cuda.synchronize()
        steps = math.ceil(GRAPH_STEPS / buffers) * buffers
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(steps):
                step(i)
        estimate = self.replay(graph, 1)[0]
        wanted = int(REPLAY_SECONDS * 1e6 / max(estimate, 1.0))
        times = self.replay(graph, min(max(wanted, LEAST_REPLAYS), MOST_REPLAYS))
        return [us / steps for us in times]

    def replay(self, graph, times):
        """Microseconds of each replay. One goes ahead, so that the GPU is busy while the host enqueues the rest."""
        torch = self.torch
        events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
        graph.replay()
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        events[-1].synchronize()
        return [1e3 * start.elapsed_time(end) for start, end in zip(events, events[1:])]


def fastest(results):
    """Name and times of the best variant, or None."""
    timed = {name: times for name, times in results.items() if not isinstance(times, str)}
    if not timed:
        return None
    name = min(timed, key=lambda key: statistics.median(timed[key]))
    return name, timed[name]


def json_line(shape, name, times, machine):
    us = statistics.median(times)
    return json.dumps({
        **dataclasses.asdict(shape),
        "us": us,
        "us_p10": percentile(times, 0.1),
        "us_p90": percentile(times, 0.9),
        "backend": name,
        "gbps": shape.bytes / us / 1e3,
        **machine,
    })


def print_table(shape, results, out):
    print(f"{shape}", file=out)
    for name, times in results.items():
        if isinstance(times, str):
            print(f"  {name:<18} skipped: {times}", file=out)
        else:
            us = statistics.median(times)
            print(f"  {name:<18} {us:9.2f} us  (p10 {percentile(times, 0.1):.2f}, p90 {percentile(times, 0.9):.2f})"
                  f"  {shape.bytes / us / 1e3:7.0f} GB/s", file=out)
    out.flush()


def parse_arguments(words):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", default=[], metavar="KEY=VALUE,...",
                        help="batch, query_heads, kv_heads, tokens, head_dim, kv_type (f16, bf16); may be repeated")
    parser.add_argument("--shapes", metavar="FILE",
                        help="JSON lines of `adamas bench --print-shapes`, - for stdin")
    parser.add_argument("--memory", type=float, default=20, metavar="GB", help="for K and V together (default: 20)")
    return parser, parser.parse_args(words)


def shapes_of(options):
    shapes = [parse_shape(text) for text in options.shape]
    if options.shapes == "-":
        listed, left_out = read_shapes(sys.stdin)
    elif options.shapes:
        with open(options.shapes, encoding="utf-8") as file:
            listed, left_out = read_shapes(file)
    else:
        listed, left_out = [], 0
    if left_out:
        print(f"{left_out} shapes left out: ragged (padding is no fair dense time), or V of another size than K",
              file=sys.stderr)
    return shapes + [shape for shape in listed if shape not in shapes]


def main(words=None):
    parser, options = parse_arguments(words)
    try:
        shapes = shapes_of(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not shapes:
        return 0 if options.shapes else parser.error("give --shape or --shapes")
    try:
        import torch
    except ImportError as error:
        print(f"bench_torch: PyTorch is missing: {error}", file=sys.stderr)
        return 1
    if not torch.cuda.is_available():
        print("bench_torch: PyTorch sees no GPU here", file=sys.stderr)
        return 1
    machine = {
        "device_name": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
    }
    print(f"{machine['device_name']}, PyTorch {machine['torch']}, cuDNN {machine['cudnn']}", file=sys.stderr)
    bench = TorchBench(torch, options.memory * 1e9)
    measured = 0
    for shape in shapes:
        results = bench.measure(shape)
        print_table(shape, results, sys.stderr)
        best = fastest(results)
        if best:
            print(json_line(shape, *best, machine), flush=True)
            measured += 1
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
