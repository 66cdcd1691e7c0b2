"""Spec: what is compiled in. Text form `key=value ...`, the same in C, C++, the command line and here."""

from __future__ import annotations

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Spec:
    """The shape of a kernel. None takes the library's default (the README's table of Specs); preparing checks it.

    >>> str(Spec(head_dim=64, group=4, lse=False))
    'head_dim=64 group=4 lse=off'
    """

    head_dim: Optional[int] = None
    value_dim: Optional[int] = None
    hadamard: Optional[int] = None
    buckets: Optional[int] = None
    estimator: Optional[str] = None
    query_bits: Optional[int] = None
    budget: Optional[int] = None
    sink: Optional[int] = None
    recent: Optional[int] = None
    group: Optional[int] = None
    scope: Optional[str] = None
    query_rows: Optional[int] = None
    kv_type: Optional[str] = None
    q_type: Optional[str] = None
    out_type: Optional[str] = None
    cache_form: Optional[str] = None
    page_size: Optional[int] = None
    tables: Optional[str] = None
    lse: Optional[bool] = None
    soft_cap: Optional[bool] = None
    window: Optional[bool] = None
    sink_logits: Optional[bool] = None

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """The Spec of `key=value ...`. ValueError names a word that is none, and unknown keys."""
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        values: dict[str, object] = {}
        for word in text.split():
            key, equals, value = word.partition("=")
            if not equals or key not in kinds:
                raise ValueError(f"spec: '{word}'; wanted key=value with a key of {', '.join(kinds)}")
            if "bool" in kinds[key] and value in ("on", "off"):
                values[key] = value == "on"
            elif "int" in kinds[key] and value.isdecimal():
                values[key] = int(value)
            elif "str" in kinds[key]:
                values[key] = value
            else:
                wanted = "on or off" if "bool" in kinds[key] else "a number"
                raise ValueError(f"spec: '{word}'; wanted {wanted} for {key}")
        return cls(**values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        words = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool):
                value = "on" if value else "off"
            if value is not None:
                words.append(f"{field.name}={value}")
        return " ".join(words)
