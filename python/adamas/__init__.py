"""adamas: sparse-attention decode kernels for exactly the shape an inference engine has, compiled at run time.

    import adamas, numpy as np
    context = adamas.Context("cpu")
    kernels = context.prepare("head_dim=64 group=4 cache_form=contiguous", max_batch=1, kv_heads=8, max_tokens=4096)
    cache = kernels.cache(keys, values)                       # [1, 4096, 8, 64] each, any strides
    codes = np.zeros(kernels.code_bytes, np.uint8)
    kernels.encode(cache, codes, thresholds)                  # stored keys -> codes
    kernels.plan(1).decode(query, cache, codes, lengths, out) # codes -> selection -> exact attention

Arrays are of any library that speaks DLPack (torch, CuPy, JAX, NumPy); nothing is copied. Context.prepare is the only
call that may compile or load. adamas.CodeCache keeps the codes of a paged cache; adamas.hf makes Hugging Face models
decode this way.
"""

from ._array import Array
from ._codes import CodeCache
from ._context import Context, baseline_pack, baseline_specs
from ._errors import Error, InvalidArgument, InvalidSpec
from ._native import COUNTERS_BYTES, VERSION, Cache, Counters, Kernels, Plan
from ._spec import Spec

__version__ = VERSION
__all__ = [
    "Array",
    "COUNTERS_BYTES",
    "Cache",
    "CodeCache",
    "Context",
    "Counters",
    "Error",
    "InvalidArgument",
    "InvalidSpec",
    "Kernels",
    "Plan",
    "Spec",
    "baseline_pack",
    "baseline_specs",
]
