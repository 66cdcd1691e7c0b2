"""Text as token ids."""

from __future__ import annotations

from typing import Any, Optional

import torch


def token_ids(model: Any, text: Any, tokenizer: Optional[Any], max_tokens: Optional[int]) -> torch.Tensor:
    """[1, tokens] int64 on the model's device.

    text       a str (by `tokenizer`, or the one that the model's name loads), or ids: a list, an array or a tensor
    """
    if isinstance(text, str):
        if tokenizer is None:
            from transformers import AutoTokenizer

            if not model.config.name_or_path:
                raise ValueError(
                    "tokenizer: None; wanted one, or token ids as text, for a model without a name"
                )
            tokenizer = AutoTokenizer.from_pretrained(model.config.name_or_path)
        text = tokenizer(text, return_tensors="pt")["input_ids"]
    ids = torch.as_tensor(text, dtype=torch.int64).reshape(1, -1)[:, :max_tokens]
    if ids.shape[1] < 2:
        raise ValueError(f"text: {ids.shape[1]} tokens; wanted at least 2")
    return ids.to(next(model.parameters()).device)
