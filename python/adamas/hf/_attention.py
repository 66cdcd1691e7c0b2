"""The attention function that transformers calls: sparse for one new token, dense otherwise."""

from __future__ import annotations

from typing import Any, Optional

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ._step import run_step

NAME = "adamas"  # of the attention implementation


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    scaling: Optional[float] = None,
    dropout: float = 0.0,
    sliding_window: Optional[int] = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [batch, query heads, tokens, head_dim], key and value [batch, kv_heads, tokens so far, dim] as
    adamas.hf.Cache (or another) returned them. Returns [batch, tokens, query heads, value_dim]."""
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ValueError(f"model: attention with {name}; adamas.hf does not support it")
    window = sliding_window or 0
    step = getattr(key, "_adamas_step", None)
    if step is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return run_step(step, query, key, value, scale, window), None
    out = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    layer = getattr(key, "_adamas_layer", None)
    if layer is not None:
        layer.prefilled(query, attention_mask, window)
    return out


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
