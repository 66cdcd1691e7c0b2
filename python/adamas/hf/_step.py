"""One decode step of one layer: append the new token's codes, select, attend. In eager code a call, for torch.compile
a custom operation with a fake kernel, so that tracing has no break."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Callable, NamedTuple, Optional

import torch

from .. import Kernels, Plan


class Tensors(NamedTuple):
    """What a step reads and writes. Compilers may put copies in place of the cache's own."""

    keys: torch.Tensor  # [batch, kv_heads, max_tokens, head_dim]
    values: torch.Tensor
    codes: torch.Tensor  # empty for a dense layer; appended to
    slots: torch.Tensor  # [batch] int32, of the newest tokens
    lengths: torch.Tensor  # [batch] int32, the newest tokens included
    starts: torch.Tensor  # [batch] int32, where each sequence's first token is


class Step:
    """What a layer's steps need besides the query. Refers to no tensor that refers to it: keys point to their Step."""

    def __init__(
        self,
        kernels: Kernels,
        plan: Plan,
        view: Any,
        address: int,
        codes: torch.Tensor,
        thresholds: Optional[tuple[torch.Tensor, Optional[torch.Tensor]]],
        slots: torch.Tensor,
        lengths: torch.Tensor,
        starts: torch.Tensor,
        counters: Any,
    ) -> None:
        self.kernels = kernels
        self.plan = plan
        self.view = view
        self.address = address  # of the keys in the view
        self.codes = codes
        self.thresholds = thresholds  # None for a dense layer
        self.slots = slots
        self.lengths = lengths
        self.starts = starts
        self.counters = counters
        # evaluate() looks on: called with (step, query, keys) after an eager step, never under torch.compile
        self.observer: Optional[Callable[["Step", torch.Tensor, torch.Tensor], None]] = None
        self.handle = next(_handles)
        _steps[self.handle] = self

    def encode(self, first_slot: int, count: int) -> None:
        """Codes of slots that were written in bulk."""
        self.kernels.encode(
            self.view,
            self.codes,
            self.thresholds[0],
            first_slot=first_slot,
            count=count,
            counters=self.counters,
        )

    def run(
        self,
        query: torch.Tensor,
        tensors: Tensors,
        out: torch.Tensor,
        scale: float,
        window: int,
    ) -> None:
        """query [batch, query heads, head_dim], out [batch, query heads, value_dim]."""
        view = self.view
        if tensors.keys.data_ptr() != self.address:  # a compiler that works on copies
            view = self.kernels.cache(tensors.keys.transpose(1, 2), tensors.values.transpose(1, 2))
        options = {"starts": tensors.starts, "scale": scale, "window": window, "counters": self.counters}
        if self.thresholds is None:
            self.plan.dense(query, view, tensors.lengths, out, **options)
            return
        key_thresholds, query_thresholds = self.thresholds
        self.plan.decode(
            query,
            view,
            tensors.codes,
            tensors.lengths,
            out,
            query_thresholds=query_thresholds,
            append_slots=tensors.slots,
            key_thresholds=key_thresholds,
            **options,
        )


_handles = itertools.count(1)
_steps: "weakref.WeakValueDictionary[int, Step]" = weakref.WeakValueDictionary()


@torch.library.custom_op("adamas::decode_step", mutates_args=("codes",))
def decode_step(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    codes: torch.Tensor,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    starts: torch.Tensor,
    handle: int,
    scale: float,
    window: int,
) -> torch.Tensor:
    """query [batch, query heads, head_dim] -> [batch, query heads, value_dim], by the Step that `handle` names."""
    step = _steps.get(handle)
    if step is None:
        raise RuntimeError("adamas::decode_step: its cache is gone; compile again with the one in use")
    out = query.new_empty(*query.shape[:2], values.shape[-1])
    step.run(query, Tensors(keys, values, codes, slots, lengths, starts), out, scale, window)
    return out


@decode_step.register_fake
def _(query, keys, values, codes, slots, lengths, starts, handle, scale, window):  # noqa: ANN001, ANN202
    return query.new_empty(*query.shape[:2], values.shape[-1])


def run_step(
    step: Step, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    """The attention of one decode step: query [batch, query heads, 1, head_dim] -> [batch, 1, query heads, value_dim].
    Eager code goes around the dispatcher, which costs more than the call."""
    rows = query[:, :, 0]
    if torch.compiler.is_compiling():
        out = torch.ops.adamas.decode_step(
            rows, keys, values, step.codes, step.slots, step.lengths, step.starts, step.handle, scale, window
        )
    else:
        out = rows.new_empty(*rows.shape[:2], values.shape[-1])
        tensors = Tensors(keys, values, step.codes, step.slots, step.lengths, step.starts)
        step.run(rows.detach(), tensors, out, scale, window)
        if step.observer is not None:
            step.observer(step, rows, keys)
    return out[:, None]
