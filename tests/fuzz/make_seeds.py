#!/usr/bin/env python3
"""Writes the seed inputs of the fuzz targets into corpus/ beside this file. Run it after a change of a format."""

import json
import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent / "corpus" / "safetensors"


def seed(name: str, header: object, data_bytes: int, pad: str = "") -> None:
    text = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))) + pad
    raw = text.encode()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(range(data_bytes)))


def tensor(dtype: str, shape: list, begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


seed("empty", {}, 0)
seed("one", {"t": tensor("F32", [2], 0, 8)}, 8)
seed("scalar_and_empty", {"s": tensor("U8", [], 0, 1), "z": tensor("F64", [3, 0], 1, 1)}, 1)
seed("metadata", {"__metadata__": {"model": "m", "B": "4"}, "h": tensor("F16", [1, 3], 0, 6)}, 6, "   ")
seed("thresholds", {"layer0.key_thresholds": tensor("F32", [2, 3], 0, 24),
                    "layer0.query_thresholds": tensor("F32", [2, 3], 24, 48)}, 48)
seed("sub_byte", {"a": tensor("F4", [6], 0, 3), "b": tensor("F6_E2M3", [4], 3, 6)}, 6)
seed("overlap", {"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, 3)
seed("overflow", {"a": tensor("F32", [2**62, 2**62], 0, 0)}, 0)
seed("repeated", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}', 0)
seed("nested", '{"a":{"dtype":"U8","shape":[[[[]]]],"data_offsets":[0,0]}}', 0)
seed("escapes", '{"\\u0061\\ud83d\\ude00":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1)
(FOLDER / "short").write_bytes(b"\x02\x00\x00")
