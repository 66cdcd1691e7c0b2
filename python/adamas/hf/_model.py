"""enable and disable: which attention a model uses, and the cache that generate() makes for it."""

from __future__ import annotations

import os
from typing import Any, Mapping, Union

from .. import Context, Spec
from ._attention import NAME
from ._cache import Cache
from ._settings import Settings, load_thresholds, settings_of


def enable(
    model: Any,
    budget: int = 128,
    estimator: str = "dot",
    dense_layers: int = 2,
    thresholds: Union[None, str, os.PathLike, Mapping[int, Any]] = None,
    *,
    spec: Union[str, Spec] = "",
    context: Union[None, Context] = None,
) -> Any:
    """Makes a transformers model decode sparsely; returns the model.

    budget        tokens that a decode step attends to in each layer and head
    estimator     'dot' or 'manhattan' (the paper's)
    dense_layers  the first so many layers attend to everything
    thresholds    a file of `adamas calibrate`, or {layer: key thresholds or (key, query)} with arrays
                  [kv_heads, buckets - 1]; None: calibrated on each cache's first prompt
    spec          further Spec keys, 'buckets=8 recent=16 ...'
    context       an adamas.Context of the model's device; None makes one

    model.generate() then makes an adamas.hf.Cache by itself; other callers pass one as past_key_values. With any other
    cache, in prefill and in assisted generation, attention stays dense (SDPA). The model is on one device. Enabling
    again replaces the settings.

    ValueError: a model whose attention cannot be replaced, a dtype or Spec that is not supported. adamas.Error: a
    device that does not work.
    """
    if getattr(model, "_adamas", None) is not None:
        disable(model)
    if not getattr(model, "_can_set_attn_implementation", lambda: False)():
        raise ValueError(
            f"model: {type(model).__name__}, whose attention does not go through AttentionInterface"
        )
    if dense_layers < 0:
        raise ValueError(f"dense_layers: {dense_layers}; wanted at least 0")
    parameter = next(model.parameters())
    device = parameter.device
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"model: on {device}; wanted a model on the CPU or a CUDA device")
    if context is None:
        context = Context("cpu" if device.type == "cpu" else f"cuda:{device.index or 0}")
    settings = Settings(
        budget=budget,
        estimator=estimator,
        dense_layers=dense_layers,
        thresholds=load_thresholds(thresholds, estimator, device),
        extra=spec if isinstance(spec, Spec) else Spec.parse(spec),
        context=context,
        counters=context.counters(),
        previous=model.config._attn_implementation,
    )
    config = model.config.get_text_config(decoder=True)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    # A Spec that cannot be is refused here, not in the midst of the first prompt.
    settings.prepared(
        settings.spec(head_dim, head_dim, config.num_attention_heads // heads, parameter.dtype, False),
        1,
        heads,
        64,
    )
    install(model, settings)
    return model


def install(model: Any, settings: Settings) -> None:
    """Puts the settings of an enable() in force."""
    model._adamas = settings
    model.set_attn_implementation(NAME)
    _take_over_generate(model)


def disable(model: Any) -> Any:
    """Restores the attention that the model had; returns the model. Caches made meanwhile are of no more use."""
    settings = settings_of(model)
    model.set_attn_implementation(settings.previous)
    del model._adamas
    del model._prepare_cache_for_generation  # of the instance; the class's comes to light again
    return model


def counters(model: Any) -> dict[str, int]:
    """What the kernels did since enable() or clear_counters(), over all layers: adamas.Counters.read, which see.
    Waits for the current stream."""
    settings = settings_of(model)
    return settings.counters.read(stream=_current_stream(model))


def clear_counters(model: Any) -> None:
    """Sets the counters to zero, in the order of the current stream."""
    settings_of(model).counters.clear(stream=_current_stream(model))


def _current_stream(model: Any) -> Any:
    import torch

    device = next(model.parameters()).device
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def _take_over_generate(model: Any) -> None:
    """generate() asks the model for a cache; where it would make a dynamic one, ours takes its place."""
    if not hasattr(type(model), "_prepare_cache_for_generation"):
        model._prepare_cache_for_generation = None
        return
    original = model._prepare_cache_for_generation

    def prepare(generation_config, model_kwargs, generation_mode, batch_size, max_cache_length, *rest):  # noqa: ANN001, ANN202
        wanted = (
            model_kwargs.get("past_key_values") is None
            and generation_config.use_cache is not False
            and generation_config.cache_implementation is None
            and not getattr(generation_config, "is_assistant", False)
            and "assisted" not in str(getattr(generation_mode, "value", generation_mode))
        )
        if wanted:
            model_kwargs["past_key_values"] = Cache(model, max_cache_length + 1)
            return None
        return original(generation_config, model_kwargs, generation_mode, batch_size, max_cache_length, *rest)

    model._prepare_cache_for_generation = prepare
