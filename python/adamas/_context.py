"""Context: one device and one kernel cache, with the package's own pack of CPU kernels behind the caller's."""

from __future__ import annotations

import os
import pathlib
import stat
from typing import Any, Iterable, Optional, Union

from . import _native
from ._array import Array
from ._errors import InvalidArgument
from ._native import Kernels
from ._spec import Spec

_FOLDER = pathlib.Path(__file__).parent
_BUCKETS, _HEAD_DIM, _KV_TYPE = 4, 128, "f16"  # the library's defaults, which calibrate has to know


def baseline_pack() -> Optional[str]:
    """Path of the kernels for CPUs without a compiler that travel with the package; None if it was built without."""
    path = _FOLDER / "baseline.pack"
    if not path.is_file():
        return None
    # The library loads no pack that others may write. An installer under umask 002 leaves it writable by the group.
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(path.parent, os.W_OK):
        try:
            path.chmod(stat.S_IMODE(mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
        except PermissionError:
            pass  # somebody else's file: the library will say what is wrong with it
    return str(path)


def baseline_specs() -> str:
    """The lists of Specs that the pack has kernels for, as `adamas precompile --specs` reads them."""
    return (_FOLDER / "baseline.specs").read_text(encoding="utf-8")


def _path_list(packs: Union[None, str, os.PathLike, Iterable[Union[str, os.PathLike]]]) -> list[str]:
    if packs is None:
        return [path for path in os.environ.get("ADAMAS_PACKS", "").split(":") if path]
    if isinstance(packs, (str, os.PathLike)):
        return [path for path in os.fspath(packs).split(":") if path]
    return [os.fspath(path) for path in packs]


class Context(_native.Context):
    """One device, one kernel cache, one compiler. Usable from any thread; not in a child after fork.

    device     'auto' (the first GPU that works, else the CPU), 'cpu', 'cuda:N'
    cache_dir  folder of compiled kernels; None: $ADAMAS_CACHE_DIR, $XDG_CACHE_HOME/adamas, ~/.cache/adamas;
               '': memory only
    threads    CPU threads of a launch, 0 = one a core
    packs      kernel packs searched first: paths, or one text with ':' between them; None: $ADAMAS_PACKS. The
               package's own pack (baseline_pack) comes after them; packs='' takes none at all
    compile    what prepare does about a kernel in no pack and no cache: 'allow', 'deny', 'background';
               'default': $ADAMAS_COMPILE, else 'allow'

    Messages of the library go to logging.getLogger('adamas').
    Error: a device that is not there, or does not work; the message says how to get it.
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        cache_dir: Union[None, str, os.PathLike] = None,
        threads: int = 0,
        packs: Union[None, str, os.PathLike, Iterable[Union[str, os.PathLike]]] = None,
        compile: str = "default",
    ) -> None:
        paths = _path_list(packs)
        own = baseline_pack()
        if own is not None and packs != "":
            paths.append(own)
        folder = None if cache_dir is None else os.fspath(cache_dir)
        super().__init__(device, folder, threads, ":".join(paths), compile)

    def prepare(
        self,
        spec: Union[str, Spec] = "",
        *,
        max_batch: int,
        kv_heads: int,
        max_tokens: int,
        max_slots: int = 0,
        tuning: str = "",
    ) -> Kernels:
        """Finds, or compiles, and loads the kernels of a Spec: the only call that may. Releases the GIL.

        max_batch   sequences of one call
        kv_heads    K/V heads of a layer; query heads = kv_heads * group
        max_tokens  tokens of one sequence; longer lengths are clamped and reported
        max_slots   physical token slots of the cache; 0: max_batch * max_tokens in whole pages, and for
                    cache_form=contiguous one row a sequence (above 0: one packed array of that many slots)
        tuning      `key=value ...`; '' = a pack's or the target's default; changes speed, never selections

        InvalidSpec, InvalidArgument (both ValueErrors); Error: unavailable, compile_failed, device_error.
        """
        return self._prepare(str(spec), max_batch, kv_heads, max_tokens, max_slots, tuning)

    def calibrate(self, spec: Union[str, Spec], keys: Array, queries: Optional[Array] = None) -> Any:
        """Default thresholds of one layer from samples after RoPE, in host memory.

        keys     [tokens, kv_heads, head_dim] of kv_type, dense
        queries  [tokens, kv_heads * group, head_dim] of q_type, dense; needed with estimator=manhattan

        Returns NumPy arrays (key_thresholds, query_thresholds), each [kv_heads, buckets - 1] float32; the second is
        None without queries.
        """
        import numpy as np

        parsed = spec if isinstance(spec, Spec) else Spec.parse(spec)
        head_dim = parsed.head_dim or _HEAD_DIM
        kv_type = parsed.kv_type or _KV_TYPE
        narrow = kv_type in ("f8e4m3fn", "q8_0")
        q_type = parsed.q_type or ("bf16" if narrow else kv_type)
        row = head_dim // 32 * 34 if kv_type == "q8_0" else head_dim
        key_shape = _checked_sample("keys", keys, row)
        shape = (key_shape[1], (parsed.buckets or _BUCKETS) - 1)
        key_out = np.empty(shape, np.float32)
        query_out = None
        if queries is not None:
            heads = key_shape[1] * (parsed.group or 1)
            if _checked_sample("queries", queries, head_dim)[1] != heads:
                raise InvalidArgument(
                    f"queries: {tuple(queries.shape)}; wanted {heads} query heads", field="queries"
                )
            query_out = np.empty(shape, np.float32)
        elif parsed.estimator == "manhattan":
            raise InvalidArgument("queries: None; wanted an array, with estimator=manhattan", field="queries")
        self._calibrate(str(spec), keys, queries, key_out, query_out, kv_type, q_type)
        return key_out, query_out


def _checked_sample(name: str, array: Any, row: int) -> tuple[int, ...]:
    shape = tuple(getattr(array, "shape", ()))
    if len(shape) != 3 or shape[2] != row:
        raise InvalidArgument(
            f"{name}: shape {shape}; wanted shape (tokens, heads, {row} elements)", field=name
        )
    return shape
