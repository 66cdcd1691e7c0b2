"""What counts as an array: anything that speaks DLPack."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Array(Protocol):
    """An array of torch, CuPy, JAX, NumPy or any other library with DLPack. Never copied.

    NumPy has no bfloat16 and no float8: uint16 and uint8 arrays of their bits are taken for them, as are ml_dtypes'.
    """

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...
