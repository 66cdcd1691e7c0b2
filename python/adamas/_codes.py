"""CodeCache: the codes of one layer's paged K cache, which follow the host's block table."""

from __future__ import annotations

from typing import Any, Optional

from ._array import Array
from ._errors import InvalidArgument
from ._native import Counters, Kernels
from ._spec import Spec


class CodeCache:
    """Codes beside a paged K/V cache (cache_form=block_table) of any array library with NumPy's manners.

    Codes are addressed by physical slot (page * page_size + token in page), as K is: whatever the host does with its
    block table (prefix sharing, eviction, reuse of pages), the codes of a page stay right as long as each page that K
    is written to is encoded again. `append` does that for new tokens, `encode_pages` for whole pages that were filled,
    loaded, copied or rewritten, `rebuild` for everything.

    kernels         of Context.prepare with cache_form=block_table
    keys, values    [pages, page_size, kv_heads, head_dim] (value_dim), any strides; kept, not copied
    key_thresholds  [kv_heads, buckets - 1] float32, on the device
    counters        of Context.counters; passed to every call

    Arrays that this class makes (codes, slots) come from `keys`' own library, on its device.
    """

    def __init__(
        self,
        kernels: Kernels,
        keys: Any,
        values: Any,
        key_thresholds: Array,
        *,
        query_thresholds: Optional[Array] = None,
        counters: Optional[Counters] = None,
    ) -> None:
        spec = Spec.parse(kernels.spec)
        if spec.cache_form != "block_table":
            raise InvalidArgument(
                f"kernels: cache_form={spec.cache_form}; wanted cache_form=block_table", field="kernels"
            )
        self.kernels = kernels
        self.keys = keys
        self.values = values
        self.key_thresholds = key_thresholds
        self.query_thresholds = query_thresholds
        self.counters = counters
        self.page_size = spec.page_size
        self.codes = _empty_like(keys, (kernels.code_bytes,), "uint8")
        self._storage = kernels.cache(keys, values)

    def slots(self, table: Any, positions: Any) -> Any:
        """Physical slots [batch, n] int32 of positions [batch, n] in sequences of a table [batch, pages]; a negative
        position gives slot -1, which encode leaves alone. Array arithmetic only: no synchronisation."""
        inside = positions >= 0
        page = (positions * inside) // self.page_size
        where = _take_along(table, page) * self.page_size + positions % self.page_size
        return _as_int32(where * inside - 1 * (~inside))

    def append(self, table: Any, lengths: Any, count: int = 1, *, stream: Any = None) -> None:
        """Encodes the last `count` tokens of every sequence. lengths [batch] int32 counts them already; a sequence
        shorter than that, or of length 0, is encoded as far as it goes."""
        steps = _arange_like(lengths, count)
        self._encode(self.slots(table, lengths[:, None] - count + steps[None, :]), stream)

    def encode_pages(self, pages: Any, *, stream: Any = None) -> None:
        """Encodes whole pages [n] int32, as after a prefill, a prefix load, a copy-on-write or a rewritten K. A
        negative page is left alone."""
        inside = pages >= 0
        first = pages * self.page_size
        slots = first[:, None] + _arange_like(pages, self.page_size)[None, :]
        self._encode(_as_int32(slots * inside[:, None] - 1 * (~inside)[:, None]), stream)

    def check(self, *, stream: Any = None) -> Any:
        """[pages, page_size, kv_heads] uint8, 1 where codes are out of step with K: a host that rewrites pages finds
        here what it forgot to encode. Never-written slots count as well."""
        shape = tuple(self.keys.shape[:3])
        stale = _empty_like(self.keys, (shape[0] * shape[1], shape[2]), "uint8")
        self.kernels.check(
            self._storage,
            self.codes,
            self.key_thresholds,
            stale=stale,
            counters=self.counters,
            stream=stream,
        )
        return stale.reshape(shape)

    def rebuild(self, *, stream: Any = None) -> None:
        """Encodes the whole cache anew from K."""
        self.kernels.encode(
            self._storage, self.codes, self.key_thresholds, counters=self.counters, stream=stream
        )

    def decode(
        self, plan: Any, query: Array, table: Array, lengths: Array, out: Array, **options: Any
    ) -> None:
        """Plan.decode over this cache with the sequences that `table` [batch, pages] int32 names."""
        cache = self.kernels.cache(self.keys, self.values, table)
        plan.decode(
            query,
            cache,
            self.codes,
            lengths,
            out,
            query_thresholds=self.query_thresholds,
            counters=self.counters,
            **options,
        )

    def _encode(self, slots: Any, stream: Any) -> None:
        self.kernels.encode(
            self._storage,
            self.codes,
            self.key_thresholds,
            slots=slots.reshape(-1),
            counters=self.counters,
            stream=stream,
        )


def _library(array: Any) -> Any:
    """The module whose functions make arrays like this one: torch, cupy, numpy."""
    import importlib

    return importlib.import_module(type(array).__module__.partition(".")[0])


def _place(array: Any) -> dict[str, Any]:
    return {"device": array.device} if type(array).__module__.startswith("torch") else {}


def _empty_like(array: Any, shape: tuple[int, ...], dtype: str) -> Any:
    library = _library(array)
    return library.zeros(shape, dtype=getattr(library, dtype), **_place(array))


def _arange_like(array: Any, count: int) -> Any:
    library = _library(array)
    return library.arange(count, dtype=library.int32, **_place(array))


def _take_along(table: Any, columns: Any) -> Any:
    library = _library(table)
    if hasattr(library, "take_along_axis"):
        return library.take_along_axis(table, columns, 1)
    return library.take_along_dim(table, columns.long(), 1)


def _as_int32(array: Any) -> Any:
    library = _library(array)
    return (
        array.to(library.int32)
        if hasattr(array, "to") and hasattr(library, "Tensor")
        else array.astype(library.int32)
    )
