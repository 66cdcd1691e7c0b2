#!/usr/bin/env python3
"""Times PyTorch's dense attention and `adamas bench --device cpu` in turns, and prints the ratios.

One query token attends to all of its K and V through scaled_dot_product_attention on the CPU: in f16, bf16 and f32,
and, where query heads share K/V heads, with enable_gqa and packed (the query heads of a K/V head as rows of one query);
and packed through two matmuls with a softmax between them. The fastest counts. K and V lie head by head, as PyTorch's kernel reads them best; steps rotate over buffers, so that
nothing of a step is left in the processor's caches. In every round each program is timed on each shape, so that what
else the machine does hits both; figures are medians over rounds, with the range.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time

from bench_torch import COLD_BYTES, Shape, layouts, parse_shape, percentile

DTYPES = {"f16": ("float16", 2), "bf16": ("bfloat16", 2), "f32": ("float32", 4)}
LEAST_CALLS = 5
HOPELESS = 4  # times as slow as the fastest so far
SHAPES = [f"query_heads=32,kv_heads={heads},tokens={tokens}" for heads in (8, 32) for tokens in (32768, 131072)]

EXAMPLE = """example:
  tools/bench_torch_cpu.py --adamas build/release/tools/adamas --rounds 3 --spec "budget=256 page_size=64\""""


class TorchCpuBench:
    """The part that needs PyTorch. `torch` is the module: imported late, so that help does not need it."""

    def __init__(self, torch, memory_bytes, seconds):
        self.torch = torch
        self.memory_bytes = memory_bytes
        self.seconds = seconds

    def measure(self, shape, dtypes):
        """Microseconds of each call: {"f16 packed": [...]}; a reason where PyTorch or memory refuses."""
        results = {}
        for name in dtypes:
            type_name, width = DTYPES[name]
            step_bytes = shape.bytes // 2 * width
            count = min(1 + math.ceil(COLD_BYTES / step_bytes), int(self.memory_bytes // step_bytes))
            if count < 1:
                results[name] = f"{step_bytes / 1e9:.1f} GB do not fit --memory"
                continue
            dtype = getattr(self.torch, type_name)
            buffers = [tuple(self.random(shape, dtype) for _ in "kv") for _ in range(count)]
            query = self.torch.randn((shape.batch, shape.query_heads, 1, shape.head_dim)).to(dtype)
            for layout in [*layouts(shape), "matmul"]:
                variant = name if layout == "plain" else f"{name} {layout}"
                try:
                    results[variant] = self.time_calls(shape, layout, query, buffers, self.hopeless(results))
                except RuntimeError as error:
                    results[variant] = str(error).strip().splitlines()[0]
        return results

    def random(self, shape, dtype):
        """K or V [batch, kv_heads, tokens, head_dim]: pieces of one pool, since a generator would take minutes."""
        size = (shape.batch, shape.kv_heads, shape.tokens, shape.head_dim)
        elements = math.prod(size)
        pool = self.torch.randn(min(elements, 1 << 20)).to(dtype)
        return pool.repeat(math.ceil(elements / pool.numel()))[:elements].view(size)

    def by_matmul(self, query, key, value):
        logits = self.torch.matmul(query, key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        return self.torch.matmul(self.torch.softmax(logits, dim=-1), value)

    @staticmethod
    def hopeless(results):
        """Microseconds of a call from which on a variant cannot become the fastest."""
        return HOPELESS * min((min(times) for times in results.values() if not isinstance(times, str)), default=math.inf)

    def time_calls(self, shape, layout, query, buffers, hopeless):
        """A variant whose first call is hopeless is called no more."""
        attention = self.by_matmul if layout == "matmul" else self.torch.nn.functional.scaled_dot_product_attention
        if layout != "gqa":
            query = query.view(shape.batch, shape.kv_heads, shape.query_heads // shape.kv_heads, shape.head_dim)
        options = {"enable_gqa": True} if layout == "gqa" else {}

        def timed(call):
            start = time.perf_counter()
            attention(query, *buffers[call % len(buffers)], **options)
            return 1e6 * (time.perf_counter() - start)
        with self.torch.inference_mode():
            first = timed(0)  # warms up
            if first > hopeless:
                return [first]
            times = []
            begin = time.perf_counter()
            while len(times) < max(LEAST_CALLS, len(buffers)) or time.perf_counter() - begin < self.seconds:
                times.append(timed(len(times) + 1))
        return times


def fastest(results):
    """Name and median of the best variant. @raises SystemExit when there is none"""
    medians = {name: statistics.median(times) for name, times in results.items() if not isinstance(times, str)}
    if not medians:
        sys.exit(f"bench_torch_cpu: PyTorch ran none of its variants: {results}")
    name = min(medians, key=medians.get)
    return name, medians[name]


def time_adamas(options, shape):
    spec = f"group={shape.query_heads // shape.kv_heads} head_dim={shape.head_dim} {options.spec}"
    shapes = f"batch={shape.batch} kv_heads={shape.kv_heads} tokens={shape.tokens}"
    words = [options.adamas, "bench", "--device", "cpu", "--json", "--seconds", str(options.seconds),
             "--memory", str(options.memory), "--spec", spec, "--shapes", shapes]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench_torch_cpu: {' '.join(words)}: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(shape, rounds):
    """Medians and ranges over rounds [{"torch": microseconds, "variant": name, "adamas": a line of bench}]."""
    def over(values):
        return {"median": statistics.median(values), "least": min(values), "most": max(values)}
    lines = [one["adamas"] for one in rounds]
    return {
        "query_heads": shape.query_heads, "kv_heads": shape.kv_heads, "tokens": shape.tokens, "batch": shape.batch,
        "spec": lines[0]["spec"], "rounds": len(rounds),
        "torch_variant": min(rounds, key=lambda one: one["torch"])["variant"],
        "torch_us": over([one["torch"] for one in rounds]),
        "us": over([line["us"] for line in lines]),
        "dense_us": over([line["dense_us"] for line in lines]),
        "ratio": over([one["torch"] / one["adamas"]["us"] for one in rounds]),
        "speedup": over([line["speedup"] for line in lines]),
        "dense_roofline": over([line["dense_roofline"] for line in lines]),
        "read_gbps": over([line["read_gbps"] for line in lines]),
        "scan_ns": over([line["scan_ns"] for line in lines]),
    }


def print_table(summaries, out):
    def cell(figures, digits, scale=1.0):
        shown = [f"{scale * figures[key]:.{digits}f}" for key in ("median", "least", "most")]
        return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]}..{shown[2]})"
    headings = ["query/KV heads", "tokens", "us", "PyTorch us", "ratio", "own dense us", "ratio",
                "dense, % of bandwidth", "PyTorch's fastest"]
    rows = [[f"{one['query_heads']}/{one['kv_heads']}", str(one["tokens"]), cell(one["us"], 0),
             cell(one["torch_us"], 0), cell(one["ratio"], 1), cell(one["dense_us"], 0), cell(one["speedup"], 1),
             cell(one["dense_roofline"], 0, 100), one["torch_variant"]] for one in summaries]
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    for row in [headings, *rows]:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths)).rstrip(), file=out)
    print("\nmedians over rounds (least..most); ratio: dense time over sparse time in one round", file=out)


def parse_arguments(words):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adamas", default="build/release/tools/adamas", metavar="FILE",
                        help="the command line to time (default: %(default)s)")
    parser.add_argument("--shape", action="append", default=[], metavar="KEY=VALUE,...",
                        help="batch, query_heads, kv_heads, tokens, head_dim; may be repeated (default: 32 query heads "
                        "over 8 and 32 K/V heads, 32K and 128K tokens)")
    parser.add_argument("--spec", default="budget=256 page_size=64", help="further Spec keys (default: %(default)s)")
    parser.add_argument("--types", default="f32,bf16,f16", help="PyTorch's number formats (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="for each figure (default: %(default)s)")
    parser.add_argument("--memory", type=float, default=4.5, metavar="GB",
                        help="for K and V of either program (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a shape in place of the table")
    return parser, parser.parse_args(words)


def main(words=None):
    parser, options = parse_arguments(words)
    types = options.types.split(",")
    for name in types:
        if name not in DTYPES:
            parser.error(f"--types {name}: must be among {', '.join(DTYPES)}")
    if options.rounds < 1 or options.seconds <= 0 or options.memory <= 0:
        parser.error("--rounds, --seconds and --memory must be positive")
    try:
        shapes = [parse_shape(text) for text in options.shape or SHAPES]
    except ValueError as error:
        parser.error(str(error))
    try:
        import torch
    except ImportError as error:
        print(f"bench_torch_cpu: PyTorch is missing: {error}", file=sys.stderr)
        return 1
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", file=sys.stderr)
    bench = TorchCpuBench(torch, options.memory * 1e9, options.seconds)
    summaries = []
    for shape in shapes:
        rounds = []
        for number in range(options.rounds):
            results = bench.measure(shape, types)
            variant, torch_us = fastest(results)
            line = time_adamas(options, shape)
            rounds.append({"torch": torch_us, "variant": variant, "adamas": line})
            shown = {name: times if isinstance(times, str)
                     else f"{statistics.median(times):.0f} ({percentile(times, 0):.0f}..)"
                     for name, times in results.items()}
            print(f"{shape}, round {number + 1}: us {line['us']:.0f}, dense {line['dense_us']:.0f}, PyTorch {shown}",
                  file=sys.stderr, flush=True)
        summaries.append(summary(shape, rounds))
        if options.json:
            print(json.dumps({"torch": torch.__version__, **summaries[-1]}), flush=True)
    if not options.json:
        print_table(summaries, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
