"""dump: what attention sees in a model that reads a text, in the file form of `adamas eval` and `adamas calibrate`."""

from __future__ import annotations

import os
from typing import Any, Iterable, Optional, Union

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ._text import token_ids

_NAME = "adamas_dump"


def dump(
    model: Any,
    text: Any,
    file: Union[str, os.PathLike],
    *,
    queries: int = 64,
    layers: Optional[Iterable[int]] = None,
    tokenizer: Optional[Any] = None,
    max_tokens: Optional[int] = None,
) -> list[int]:
    """Writes q, k and v after RoPE to a safetensors file; returns the layers in it.

    text        a str, or token ids
    queries     the last so many queries are kept; all keys and values are
    layers      which layers; None: all
    tokenizer   for a str; None: what the model's name loads
    max_tokens  the text is cut there

    The file holds layerN.q [queries, query heads, head_dim], layerN.k and layerN.v [tokens, kv_heads, dim] in the
    model's dtype; query i stands at position tokens - queries + i.
    """
    from safetensors.torch import save_file

    ids = token_ids(model, text, tokenizer, max_tokens)
    wanted = None if layers is None else set(layers)
    tensors: dict[str, torch.Tensor] = {}

    def record(module, query, key, value, attention_mask, **kwargs):  # noqa: ANN001, ANN003, ANN202
        index = module.layer_idx
        if wanted is None or index in wanted:
            for name, rows in (("q", query[0, :, -queries:]), ("k", key[0]), ("v", value[0])):
                tensors[f"layer{index}.{name}"] = rows.transpose(0, 1).contiguous().cpu()
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    previous = model.config._attn_implementation
    AttentionInterface.register(_NAME, record)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    try:
        model.set_attn_implementation(_NAME)
        with torch.no_grad():
            model(ids, use_cache=False)
    finally:
        model.set_attn_implementation(previous)
    if not tensors:
        raise ValueError(f"layers: {layers}; wanted layers of the model, which has none of them")
    metadata = {"model": str(model.config.name_or_path), "tokens": str(ids.shape[1])}
    save_file(tensors, os.fspath(file), metadata=metadata)
    return sorted({int(name[len("layer") : name.index(".")]) for name in tensors})
