"""Sparse decode on a paged K/V cache with NumPy: a prompt, ten steps, and proof that the sparse path ran.

    python numpy_decode.py [--tokens 4000]

Runs without a compiler: the package carries the kernels of common shapes.
"""

import argparse
import time

import numpy as np

import adamas

HEAD_DIM, GROUP, KV_HEADS, PAGE, BUDGET, STEPS = 64, 4, 8, 16, 128, 10

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tokens", type=int, default=4000)
options = parser.parse_args()

context = adamas.Context("cpu")
pages = -(-(options.tokens + STEPS) // PAGE)
kernels = context.prepare(
    adamas.Spec(head_dim=HEAD_DIM, group=GROUP, budget=BUDGET, kv_type="f16", page_size=PAGE),
    max_batch=1,
    kv_heads=KV_HEADS,
    max_tokens=pages * PAGE,
)

# What the engine has: K and V in pages, and a block table that says whose they are.
rng = np.random.default_rng(0)
keys = rng.standard_normal((pages, PAGE, KV_HEADS, HEAD_DIM), np.float32).astype(np.float16)
values = rng.standard_normal((pages, PAGE, KV_HEADS, HEAD_DIM), np.float32).astype(np.float16)
table = rng.permutation(pages).astype(np.int32)[None]

# What is added: thresholds of the layer, and codes beside the keys.
thresholds, _ = context.calibrate(kernels.spec, keys.reshape(-1, KV_HEADS, HEAD_DIM))
counters = context.counters()
codes = adamas.CodeCache(kernels, keys, values, thresholds, counters=counters)
codes.encode_pages(table[0])

plan = kernels.plan(batch=1)
out = np.empty((1, KV_HEADS * GROUP, HEAD_DIM), np.float16)
exact = np.empty_like(out)
seconds = 0.0
for step in range(STEPS):
    length = options.tokens + step + 1
    where = table[0, (length - 1) // PAGE], (length - 1) % PAGE
    keys[where] = rng.standard_normal((KV_HEADS, HEAD_DIM), np.float32)  # the engine appends a token
    values[where] = rng.standard_normal((KV_HEADS, HEAD_DIM), np.float32)
    lengths = np.array([length], np.int32)
    query = rng.standard_normal(out.shape, np.float32).astype(np.float16) * np.float16(4)
    start = time.perf_counter()
    codes.append(table, lengths)
    codes.decode(plan, query, table, lengths, out)
    seconds += time.perf_counter() - start

plan.dense(query, kernels.cache(keys, values, table), lengths, exact)
difference = np.linalg.norm((out - exact).astype(np.float32)) / np.linalg.norm(exact.astype(np.float32))
counted = counters.read()
print(
    f"{context.device_name}: {STEPS} steps over {options.tokens} tokens, {seconds / STEPS * 1e6:.0f} us each"
)
attended, scanned = (
    counted["tokens_attended"] // counted["rows"],
    counted["tokens_scanned"] // STEPS // KV_HEADS,
)
print(
    f"attended {attended} tokens a row of {scanned} scanned; {counted['dense_short']} dense rows; "
    f"against dense attention {difference:.2f} relative L2"
)
