"""What enable() decided for a model, and the kernels that its caches share."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Mapping, Optional, Union

import torch

from .. import Context, Kernels, Spec

TYPE_NAMES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}

# One layer's thresholds: of keys, and of queries where the estimator wants them; [kv_heads, buckets - 1] float32.
Thresholds = tuple[torch.Tensor, Optional[torch.Tensor]]


@dataclasses.dataclass
class Settings:
    """Of one model. Immutable but for the kernels that have been prepared so far."""

    budget: int
    estimator: str
    dense_layers: int
    thresholds: Optional[dict[int, Thresholds]]
    extra: Spec
    context: Context
    counters: Any
    previous: str  # the attention implementation to restore
    kernels: dict[tuple, Kernels] = dataclasses.field(default_factory=dict)

    def spec(self, head_dim: int, value_dim: int, group: int, dtype: torch.dtype, window: bool) -> Spec:
        """The Spec of a layer of that shape."""
        if dtype not in TYPE_NAMES:
            raise ValueError(f"model: dtype {dtype}; wanted float16, bfloat16 or float32")
        return dataclasses.replace(
            self.extra,
            head_dim=head_dim,
            value_dim=value_dim,
            group=group,
            budget=self.budget,
            estimator=self.estimator,
            kv_type=TYPE_NAMES[dtype],
            cache_form="contiguous",
            window=window,
        )

    def prepared(self, spec: Spec, batch: int, kv_heads: int, max_tokens: int) -> Kernels:
        """Kernels of a Spec and capacity: compiled or loaded once for all layers and caches."""
        key = (spec, batch, kv_heads, max_tokens)
        if key not in self.kernels:
            self.kernels[key] = self.context.prepare(
                spec, max_batch=batch, kv_heads=kv_heads, max_tokens=max_tokens
            )
        return self.kernels[key]


def settings_of(model: Any) -> Settings:
    """Of an enabled model. @raises ValueError otherwise"""
    settings = getattr(model, "_adamas", None)
    if settings is None:
        raise ValueError("model: sparse decode is not enabled; call adamas.hf.enable(model) first")
    return settings


def load_thresholds(
    given: Union[None, str, os.PathLike, Mapping[int, Any]], estimator: str, device: torch.device
) -> Optional[dict[int, Thresholds]]:
    """From a file of `adamas calibrate` (layerN.key_thresholds, layerN.query_thresholds), or a mapping from layer to
    an array or a pair of arrays."""
    if given is None:
        return None
    pairs: dict[int, tuple[Any, Any]] = {}
    if isinstance(given, (str, os.PathLike)):
        from safetensors.torch import load_file

        tensors = load_file(os.fspath(given))
        for name, tensor in tensors.items():
            layer, _, kind = name.removeprefix("layer").partition(".")
            if kind == "key_thresholds":
                pairs[int(layer)] = (tensor, tensors.get(f"layer{layer}.query_thresholds"))
    else:
        for layer, value in given.items():
            pairs[int(layer)] = tuple(value) if isinstance(value, (tuple, list)) else (value, None)
    if not pairs:
        raise ValueError(
            f"thresholds: {given!r} has none; wanted layerN.key_thresholds for every sparse layer"
        )

    def on_device(array: Any) -> Optional[torch.Tensor]:
        return None if array is None else torch.as_tensor(array).to(device, torch.float32).contiguous()

    if estimator == "manhattan" and any(query is None for _, query in pairs.values()):
        raise ValueError("thresholds: a layer without query thresholds; estimator='manhattan' wants them")
    return {layer: (on_device(key), on_device(query)) for layer, (key, query) in pairs.items()}
