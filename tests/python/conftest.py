"""What the tests of the Python package share: a CPU context and a small layer of random data."""

import dataclasses

import numpy as np
import pytest

import adamas
import oracle

ERROR = {"f16": 2e-3, "bf16": 8e-3, "f32": 1e-5}  # relative L2 a row that the contract allows


@pytest.fixture(scope="session")
def context():
    # One thread: the machine of a test has others to serve, and spinning threads starve each other.
    return adamas.Context("cpu", threads=1)


def to_bits(values, kv_type):
    """A float32 array as the library is given it, and what it then holds."""
    if kv_type == "f16":
        stored = values.astype(np.float16)
        return stored, stored.astype(np.float32)
    if kv_type == "bf16":  # NumPy has none: the upper half of a float32, rounded to nearest even
        bits = values.astype(np.float32).view(np.uint32)
        stored = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return stored, from_bits(stored, kv_type)
    return values.astype(np.float32), values.astype(np.float32)


def from_bits(stored, kv_type):
    if kv_type == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


@dataclasses.dataclass
class Layer:
    """Random queries and K/V of sequences, and the oracle's answer for them."""

    lengths: np.ndarray
    query: np.ndarray  # [batch, query heads, dim] as given
    keys: np.ndarray  # [batch, tokens, kv_heads, dim] as given
    values: np.ndarray
    thresholds: np.ndarray
    exact: tuple  # float32 of query, keys, values
    kv_type: str

    def answer(self, budget, dense_below=None, estimator="dot", query_thresholds=None):
        """Outputs [batch, heads, dim], log-sum-exp [batch, heads] and positions as lists."""
        query, keys, values = self.exact
        group = query.shape[1] // keys.shape[2]
        out = np.zeros(query.shape[:2] + values.shape[-1:])
        lse = np.full(query.shape[:2], -np.inf)
        chosen = []
        for b, length in enumerate(self.lengths):
            rows = []
            if length > 0:
                codes = oracle.codes(keys[b, :length], self.thresholds)
                buckets = self.thresholds.shape[1] + 1
                scores = oracle.scores(query[b], codes, buckets, estimator, query_thresholds)
            for h in range(query.shape[1]):
                if length == 0:
                    rows.append(np.array([], int))
                    continue
                short = length <= (budget if dense_below is None else dense_below)
                rows.append(np.arange(length) if short else oracle.select(scores[h], budget))
                out[b, h], lse[b, h] = oracle.attend(
                    query[b, h], keys[b, :, h // group], values[b, :, h // group], rows[-1]
                )
            chosen.append(rows)
        return out, lse, chosen

    def check(self, out, budget, **options):
        """Compares an output array with the oracle's, row by row."""
        wanted, _, _ = self.answer(budget, **options)
        got = from_bits(np.asarray(out), self.kv_type)
        for b in range(len(self.lengths)):
            for h in range(wanted.shape[1]):
                error = np.linalg.norm(got[b, h] - wanted[b, h])
                assert error <= ERROR[self.kv_type] * max(np.linalg.norm(wanted[b, h]), 1e-30), (b, h, error)


def make_layer(lengths, kv_heads=2, group=4, dim=64, tokens=None, kv_type="f32", seed=0):
    rng = np.random.default_rng(seed)
    tokens = tokens or max(lengths)
    given, exact = [], []
    for shape in [
        (len(lengths), kv_heads * group, dim),
        (len(lengths), tokens, kv_heads, dim),
        (len(lengths), tokens, kv_heads, dim),
    ]:
        stored, held = to_bits(rng.standard_normal(shape, np.float32), kv_type)
        given.append(stored)
        exact.append(held)
    thresholds = np.sort(rng.uniform(-1, 1, (kv_heads, 3)).astype(np.float32))
    return Layer(np.array(lengths, np.int32), *given, thresholds, tuple(exact), kv_type)
