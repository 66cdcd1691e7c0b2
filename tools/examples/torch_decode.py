"""Sparse decode in PyTorch on a K/V cache of the shape that Hugging Face keeps, captured in a CUDA graph on a GPU.

python torch_decode.py [--tokens 32768] [--device cuda:0]
"""

import argparse

import torch

import adamas

HEAD_DIM, GROUP, KV_HEADS, BATCH, BUDGET = 128, 4, 8, 1, 128

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tokens", type=int, default=4000)
parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
options = parser.parse_args()
device, tokens = torch.device(options.device), options.tokens
dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
type_name = {torch.bfloat16: "bf16", torch.float32: "f32"}[dtype]
torch.manual_seed(0)

# The cache of a model: [batch, K/V heads, tokens, head_dim]. A view with tokens first is all that is needed.
keys = torch.randn(BATCH, KV_HEADS, tokens, HEAD_DIM, device=device).to(dtype)
values = torch.randn(BATCH, KV_HEADS, tokens, HEAD_DIM, device=device).to(dtype)
query = 4 * torch.randn(BATCH, KV_HEADS * GROUP, HEAD_DIM, device=device).to(dtype)
lengths = torch.full((BATCH,), tokens, dtype=torch.int32, device=device)

context = adamas.Context(str(device))
spec = f"head_dim={HEAD_DIM} group={GROUP} budget={BUDGET} kv_type={type_name} cache_form=contiguous"
kernels = context.prepare(spec, max_batch=BATCH, kv_heads=KV_HEADS, max_tokens=tokens)
cache = kernels.cache(keys.transpose(1, 2), values.transpose(1, 2))
codes = torch.zeros(kernels.code_bytes, dtype=torch.uint8, device=device)
sample = keys[0].transpose(0, 1)[:4096].contiguous().cpu()
thresholds = torch.from_numpy(context.calibrate(spec, sample)[0]).to(device)
kernels.encode(cache, codes, thresholds)

plan = kernels.plan(batch=BATCH)
counters = context.counters()
out = torch.empty_like(query)


def step():
    plan.decode(query, cache, codes, lengths, out, counters=counters)  # on PyTorch's current stream


if device.type == "cuda":
    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay = graph.replay
else:
    replay = step
counters.clear()
replay()
counted = counters.read()

packed = query.view(BATCH, KV_HEADS, GROUP, HEAD_DIM)
dense = torch.nn.functional.scaled_dot_product_attention(packed, keys, values).view_as(query)
difference = (out.float() - dense.float()).norm() / dense.float().norm()
ran = counted["rows"] > 0 and counted["dense_short"] == counted["dense_requested"] == counted["dense_background"] == 0
print(
    f"{context.device_name}: attended {counted['tokens_attended'] // max(counted['rows'], 1)} of {tokens} tokens a row, "
    f"{difference:.2f} relative L2 from dense; sparse path: {'yes' if ran else 'no'}"
)
