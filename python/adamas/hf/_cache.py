"""A preallocated K/V cache of transformers that keeps codes beside the keys."""

from __future__ import annotations

from typing import Any, Optional

import torch
from transformers import cache_utils

from .. import Kernels, Plan
from ._settings import Settings, Thresholds, settings_of
from ._step import Step

_ROUND = 64  # tokens of a tile of codes: rows of whole tiles have the fastest layout
_SAMPLE = 4096  # tokens that thresholds are calibrated on, at most


class Cache(cache_utils.Cache):
    """K, V and codes of all layers for sequences of up to max_tokens tokens, for a model that enable() was called on.

    model       the enabled model
    max_tokens  tokens of one sequence, prompt, padding and new tokens together; rounded up to a multiple of 64

    Memory is taken at the first forward pass, which brings batch, heads and dtype, and stays where it is, so that
    decode steps can be captured in a CUDA graph: they read positions and lengths from the device and update them
    there. The first pass (and any later one of several tokens) attends densely and is encoded; passes of one token
    per sequence are sparse. Batches of unequal prompts are padded on the left. A step beyond max_tokens is an error of
    the index on the CPU and a device-side assertion on a GPU.
    """

    def __init__(self, model: Any, max_tokens: int) -> None:
        settings = settings_of(model)
        if max_tokens < 1:
            raise ValueError(f"max_tokens: {max_tokens}; wanted at least 1")
        self.max_tokens = -(-max_tokens // _ROUND) * _ROUND
        self.shared = _Shared()
        count = model.config.get_text_config(decoder=True).num_hidden_layers
        super().__init__(
            layers=[Layer(settings, self.shared, index, self.max_tokens) for index in range(count)]
        )

    def __repr__(self) -> str:
        return f"adamas.hf.Cache({len(self.layers)} layers, {self.max_tokens} tokens)"

    def seek(self, tokens: int) -> None:
        """Declares that the first `tokens` tokens of every sequence are in the layers' keys and values, without
        padding: encodes them and goes on from there. For K/V that came from elsewhere; after a first pass."""
        if self.shared.positions is None:
            raise ValueError("cache: not initialised; run one forward pass first")
        if not 1 <= tokens <= self.max_tokens:
            raise ValueError(f"tokens: {tokens}; wanted 1..{self.max_tokens}")
        self.shared.positions.starts.zero_()
        self.shared.positions.set_count(tokens)
        for layer in self.layers:
            layer.encode(0, tokens)


class _Shared:
    """What the layers of a cache share, without holding the cache: positions, and the plans of their kernels."""

    def __init__(self) -> None:
        self.positions: Optional[_Positions] = None
        self.plans: dict[Kernels, Plan] = {}

    def plan(self, kernels: Kernels, batch: int) -> Plan:
        """Layers run one after the other, so one plan and its workspace serve all of a kind."""
        if kernels not in self.plans:
            self.plans[kernels] = kernels.plan(batch)
        return self.plans[kernels]


class _Positions:
    """Where the newest tokens are, on the device; the same for all layers. Updated in place, by graph replays too."""

    def __init__(self, batch: int, max_tokens: int, device: torch.device) -> None:
        self.batch = batch
        self.rows = torch.arange(batch, dtype=torch.int32, device=device) * max_tokens
        self.starts = torch.zeros(batch, dtype=torch.int32, device=device)
        self.lengths = torch.zeros(batch, dtype=torch.int32, device=device)
        self.slots = self.rows - 1
        self.position = torch.full((1,), -1, dtype=torch.int64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    def advance(self) -> None:
        """By one token a sequence."""
        self.position.add_(1)
        self.count.add_(1)
        self.slots.add_(1)
        self.lengths.add_(1)

    def set_count(self, tokens: int) -> None:
        """Tokens stored in every row, padding included."""
        self.count.fill_(tokens)
        self.position.fill_(tokens - 1)
        self.slots.copy_(self.rows + (tokens - 1))
        self.lengths.copy_(tokens - self.starts)


class Layer(cache_utils.CacheLayerMixin):
    """One layer of a Cache: keys [batch, kv_heads, max_tokens, head_dim], values likewise, codes in its Step."""

    is_compileable = False  # generate() shall not compile by itself; torch.compile of the model works
    is_sliding = False  # windows are the kernel's business: all tokens are kept

    def __init__(self, settings: Settings, shared: _Shared, index: int, max_tokens: int) -> None:
        super().__init__()
        self.settings = settings
        self.shared = shared  # and not the cache: a cycle's memory would wait for the garbage collector
        self.index = index
        self.max_tokens = max_tokens
        self.dense = index < settings.dense_layers
        self.step: Optional[Step] = None
        self.thresholds: Optional[Thresholds] = None
        self.filled = False

    # ---- what transformers calls

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, heads = key_states.shape[:2]
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros(batch, heads, self.max_tokens, key_states.shape[-1])
        self.values = value_states.new_zeros(batch, heads, self.max_tokens, value_states.shape[-1])
        if self.shared.positions is None:
            self.shared.positions = _Positions(batch, self.max_tokens, key_states.device)
        self.positions = self.shared.positions
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores new tokens. One token a sequence: the whole buffers come back, for the sparse step. Otherwise the
        tokens that dense attention needs."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.filled and key_states.shape[-2] == 1:
            if self.index == 0:
                self.positions.advance()
            self.keys.index_copy_(2, self.positions.position, key_states)
            self.values.index_copy_(2, self.positions.position, value_states)
            return self.keys, self.values
        return self._append(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        if not self.filled:
            return query_length, 0
        if query_length == 1:
            return self.max_tokens, 0
        return int(self.positions.count) + query_length, 0

    def get_seq_length(self) -> Any:
        return self.positions.count if self.filled else 0

    def get_max_length(self) -> int:
        return self.max_tokens

    def reset(self) -> None:
        self.filled = False
        if self.is_initialized:
            self.keys.zero_()
            self.values.zero_()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Beams change rows: K and V move, codes are made anew."""
        if not self.filled:
            return
        where = beam_idx.to(self.keys.device)
        self.keys.copy_(self.keys.index_select(0, where))
        self.values.copy_(self.values.index_select(0, where))
        if self.index == 0:
            self.positions.starts.copy_(self.positions.starts.index_select(0, where))
            self.positions.lengths.copy_(self.positions.lengths.index_select(0, where))
        self.encode(0, int(self.positions.count))

    # ---- what the attention function calls

    def prefilled(self, query: torch.Tensor, mask: Optional[torch.Tensor], window: int) -> None:
        """After `update` stored several tokens: learns padding, thresholds and codes.
        query [batch, query heads, tokens, head_dim], mask [batch, 1, tokens, tokens so far] bool or None."""
        tokens = query.shape[2]
        if self.index == 0:
            if self._stored == tokens:
                self.positions.starts.copy_(_starts_of(mask, self.positions.batch, window))
            self.positions.set_count(self._stored)
        if self.step is None:
            self._prepare(query, window)
        self.encode(self._stored - tokens, tokens)

    def encode(self, first: int, count: int) -> None:
        """Codes of tokens first .. first + count - 1 of every row."""
        if self.step is None or self.dense:
            return
        for row in range(self.positions.batch):
            self.step.encode(row * self.max_tokens + first, count)

    # ---- inside

    def _append(
        self, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        first = int(self.positions.count) if self.filled else 0
        # Layer 0 moves the count on before the others store.
        if self.filled and self.index > 0:
            first -= key_states.shape[-2]
        last = first + key_states.shape[-2]
        if last > self.max_tokens:
            raise ValueError(f"tokens: {last}; wanted at most the cache's max_tokens {self.max_tokens}")
        self.keys[:, :, first:last].copy_(key_states)
        self.values[:, :, first:last].copy_(value_states)
        self._stored = last
        keys, values = (
            (key_states, value_states) if first == 0 else (self.keys[:, :, :last], self.values[:, :, :last])
        )
        self.filled = True
        keys._adamas_layer = self
        return keys, values

    def _prepare(self, query: torch.Tensor, window: int) -> None:
        batch, heads = self.keys.shape[:2]
        head_dim, value_dim = self.keys.shape[-1], self.values.shape[-1]
        spec = self.settings.spec(head_dim, value_dim, query.shape[1] // heads, self.dtype, window > 0)
        kernels = self.settings.prepared(spec, batch, heads, self.max_tokens)
        codes = self.keys.new_empty(0, dtype=torch.uint8)
        if not self.dense:
            codes = torch.zeros(kernels.code_bytes, dtype=torch.uint8, device=self.device)
            self.thresholds = self._thresholds(spec, query)
        # Aliases of the storage, not views of the tensors: those would refer back to them.
        view = kernels.cache(self.keys.detach().transpose(1, 2), self.values.detach().transpose(1, 2))
        self.step = Step(
            kernels,
            self.shared.plan(kernels, batch),
            view,
            self.keys.data_ptr(),
            codes,
            self.thresholds,
            self.positions.slots,
            self.positions.lengths,
            self.positions.starts,
            self.settings.counters,
        )
        self.keys._adamas_step = self.step

    def _thresholds(self, spec: Any, query: torch.Tensor) -> Thresholds:
        if self.settings.thresholds is not None:
            if self.index not in self.settings.thresholds:
                raise ValueError(
                    f"thresholds: none for layer {self.index}; wanted them for every sparse layer"
                )
            return self.settings.thresholds[self.index]
        starts = self.positions.starts.tolist()
        sample = max(_SAMPLE // len(starts), 1)
        keys, queries = [], []
        for row, start in enumerate(starts):
            inside = range(start, self._stored, max(-(-(self._stored - start) // sample), 1))
            keys.append(self.keys[row, :, inside.start : inside.stop : inside.step])
            queries.append(query[row, :, inside.start : inside.stop : inside.step])
        key_sample = torch.cat(keys, 1).transpose(0, 1).contiguous().detach().cpu()
        query_sample = None
        if self.settings.estimator == "manhattan":
            query_sample = torch.cat(queries, 1).transpose(0, 1).contiguous().detach().cpu()
        of_keys, of_queries = self.settings.context.calibrate(spec, key_sample, query_sample)
        return (
            torch.from_numpy(of_keys).to(self.device),
            None if of_queries is None else torch.from_numpy(of_queries).to(self.device),
        )


def _starts_of(mask: Optional[torch.Tensor], batch: int, window: int) -> torch.Tensor:
    """Index of each sequence's first token, from the mask of a first pass: [batch, 1, tokens, tokens] bool, True where
    a token is seen. @raises ValueError when a sequence is padded on the right"""
    if mask is None:
        return torch.zeros(batch, dtype=torch.int32)
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    seen = seen[:, 0].expand(batch, -1, -1)
    # Of the last token; with a window, which hides the first tokens from it, of each token itself.
    row = seen.diagonal(dim1=-2, dim2=-1) if window > 0 else seen[:, -1]
    if not bool(row[:, -1].all()):
        raise ValueError("attention_mask: a sequence is padded on the right; wanted padding on the left")
    return row.int().argmax(-1).to(torch.int32)
