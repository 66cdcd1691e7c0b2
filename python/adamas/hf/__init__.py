"""Sparse decode in Hugging Face models: prefill stays dense, every decode step selects and attends to `budget` tokens.

    model = AutoModelForCausalLM.from_pretrained(..., device_map="cuda")
    adamas.hf.enable(model, budget=128)
    model.generate(**inputs)            # with a preallocated adamas.hf.Cache, which generate makes by itself
    adamas.hf.counters(model)           # {'rows': ..., 'tokens_attended': ...}: proof that the sparse path ran
    adamas.hf.disable(model)

Works for models whose attention goes through transformers' AttentionInterface (Llama, Qwen, Mistral and many more), with
sliding windows, grouped queries and left-padded batches. Needs torch and transformers >= 5.17.
"""

from ._attention import NAME
from ._cache import Cache
from ._dump import dump
from ._evaluate import evaluate
from ._model import clear_counters, counters, disable, enable

__all__ = ["Cache", "NAME", "clear_counters", "counters", "disable", "dump", "enable", "evaluate"]
