#!/usr/bin/env python3
"""Times the whole decode step of a Llama-shaped Hugging Face model: PyTorch's attention against sparse decode.

    python3 tools/bench_hf.py [--models 1b,8b-mha,8b-gqa] [--context 32768] [--budget 128] [--out FILE.jsonl]

Random weights in bfloat16, K and V of random data: the time does not depend on them, and codes of random keys select as
those of real ones do. Both sides use one preallocated cache of adamas.hf and the same model; only the attention function
differs: SDPA over exactly the tokens of the context, by the fastest backend and layout (flash, cuDNN, efficient;
enable_gqa or the group's query heads packed as rows), against select and attend. Each is captured in a CUDA graph and
timed by events around replays, and timed eagerly as well; `no attention` is the same step without the call.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from adamas import hf
from adamas.hf import _attention

MODELS = {
    "1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
               num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True),
    "8b-mha": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                   num_key_value_heads=32, head_dim=128, vocab_size=128256),
    "8b-gqa": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                   num_key_value_heads=8, head_dim=128, vocab_size=128256),
}  # fmt: skip
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


class Attention:
    """What stands in for adamas.hf's attention during one measurement."""

    def __init__(self, context: int) -> None:
        self.context = context
        self.kind = "sparse"

    def __call__(self, module, query, key, value, attention_mask, scaling=None, **kwargs):  # noqa: ANN001, ANN003
        step = getattr(key, "_adamas_step", None)
        if step is None or self.kind == "sparse":
            return _attention.attention(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        if self.kind == "none":
            return query.transpose(1, 2), None
        backend, layout = self.kind.split()
        key, value = key[:, :, : self.context], value[:, :, : self.context]
        batch, heads, _, dim = query.shape
        rows = query if layout == "gqa" else query.reshape(batch, key.shape[1], heads // key.shape[1], dim)
        with sdpa_kernel(BACKENDS[backend]):
            out = torch.nn.functional.scaled_dot_product_attention(
                rows, key, value, scale=scaling, enable_gqa=layout == "gqa" and heads != key.shape[1]
            )
        return out.reshape(batch, 1, heads, dim) if layout == "packed" else out.transpose(1, 2), None


def make_model(name: str, context: int, device: torch.device):
    """A Llama of random weights, made on the device in its own dtype."""
    config = transformers.LlamaConfig(max_position_embeddings=context + 64, **MODELS[name])
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with torch.device(device):
            model = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


class Bench:
    """One model and its cache, filled to one token short of the context."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.options = options
        self.model = make_model(name, options.context, self.device)
        shape = MODELS[name]
        # Of keys from a unit Gaussian, which is what the cache is filled with.
        points = torch.tensor([[-0.9816, 0.0, 0.9816]] * shape["num_key_value_heads"])
        thresholds = {layer: (points, points * 0.3) for layer in range(shape["num_hidden_layers"])}
        hf.enable(self.model, options.budget, options.estimator, options.dense_layers, thresholds)
        self.attention = Attention(options.context)
        AttentionInterface.register(hf.NAME, self.attention)
        self.cache = hf.Cache(self.model, options.context)
        self.token = torch.full((options.batch, 1), 7, device=self.device)
        self.places = torch.full((options.batch, 1), options.context - 1, device=self.device)
        self.model(self.token.expand(-1, 8), past_key_values=self.cache)
        for layer in self.cache.layers:
            layer.keys.normal_()
            layer.values.normal_()
        self.rewind()

    def rewind(self) -> None:
        self.cache.seek(self.options.context - 1)

    def step(self) -> torch.Tensor:
        """One token. The position goes back after it, so that every step sees exactly the context; in a graph, too."""
        logits = self.model(self.token, position_ids=self.places, past_key_values=self.cache).logits
        positions = self.cache.shared.positions
        for tensor in (positions.position, positions.count, positions.slots, positions.lengths):
            tensor.sub_(1)
        return logits

    def capture(self):
        """A CUDA graph of one step, after the warm-up that lazy initialisation wants."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph

    def milliseconds(self, run) -> float:  # noqa: ANN001
        """Median time of a step over groups of back-to-back steps."""
        if self.device.type != "cuda":
            run()
            start = time.perf_counter()
            run()
            return (time.perf_counter() - start) * 1e3
        for _ in range(5):
            run()
        times = []
        for _ in range(self.options.repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(5):
                run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 5)
        return statistics.median(times)

    def measure(self, kind: str) -> dict[str, float]:
        """{'graph_ms', 'eager_ms'} of one kind of attention. @raises RuntimeError where a backend refuses the shape"""
        self.attention.kind = kind
        self.step()
        result = {"eager_ms": self.milliseconds(self.step)}
        if self.device.type == "cuda":
            graph = self.capture()
            result["graph_ms"] = self.milliseconds(graph.replay)
            del graph
        return result

    def proof(self) -> dict[str, int]:
        """Counters of one sparse step."""
        self.attention.kind = "sparse"
        hf.clear_counters(self.model)
        self.step()
        return hf.counters(self.model)


def bench(name: str, options: argparse.Namespace) -> dict:
    """One line of results."""
    run = Bench(name, options)
    dense = {}
    for backend in BACKENDS:
        for layout in ("gqa", "packed"):
            try:
                dense[f"{backend} {layout}"] = run.measure(f"{backend} {layout}")
            except RuntimeError as error:
                run.rewind()  # the step ended half way
                print(f"{name}: {backend} {layout}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
    if not dense:
        raise SystemExit("no SDPA backend takes this shape here")
    sparse, none, proof = run.measure("sparse"), run.measure("none"), run.proof()
    shape = MODELS[name]
    heads, layers = shape["num_attention_heads"] * options.batch, shape["num_hidden_layers"]
    expected = heads * (layers - options.dense_layers) * options.budget
    expected += heads * min(options.dense_layers, layers) * options.context
    if proof["tokens_attended"] != expected or proof["status"] != 0:
        raise SystemExit(f"{name}: the sparse path did not run as asked: {proof}, wanted {expected} tokens attended")
    result = {"model": name, "context": options.context, "batch": options.batch, "budget": options.budget,
              "dense_layers": options.dense_layers, "torch": torch.__version__,
              "transformers": transformers.__version__,
              "device": torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu"}  # fmt: skip
    for key in ("graph_ms", "eager_ms"):
        if key not in sparse:
            continue
        best = min(dense, key=lambda backend: dense[backend][key])
        result[key] = {
            "dense": round(dense[best][key], 3),
            "backend": best,
            "sparse": round(sparse[key], 3),
            "no_attention": round(none[key], 3),
            "ratio": round(dense[best][key] / sparse[key], 3),
            "all": {backend: round(times[key], 3) for backend, times in dense.items()},
        }
    result["counters"] = proof
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="1b,8b-mha,8b-gqa", help="of " + ", ".join(MODELS))
    parser.add_argument("--context", type=int, default=32768, help="tokens that a step sees (a multiple of 64)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--estimator", default="dot")
    parser.add_argument("--dense-layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30, help="groups of 5 steps; the median is reported")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--layers", type=int, help="fewer layers, for a trial")
    parser.add_argument("--out", help="JSON lines go here, too")
    options = parser.parse_args()
    unknown = set(options.models.split(",")) - set(MODELS)
    if unknown:
        parser.error(f"--models: {', '.join(sorted(unknown))}; wanted some of {', '.join(MODELS)}")
    if options.layers:
        for shape in MODELS.values():
            shape["num_hidden_layers"] = options.layers
    for name in options.models.split(","):
        with torch.no_grad():
            result = bench(name, options)
        line = json.dumps(result)
        print(line, flush=True)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        for key in ("graph_ms", "eager_ms"):
            if key in result:
                r = result[key]
                print(f"{name} {options.context} {key}: dense {r['dense']} ({r['backend']}), sparse {r['sparse']}, "
                      f"no attention {r['no_attention']}, ratio {r['ratio']}", file=sys.stderr)  # fmt: skip
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
