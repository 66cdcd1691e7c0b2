"""The contract of the algorithm in plain NumPy, sharing nothing with the library. head_dim is a power of two here."""

import numpy as np

QUERY_BITS = 4


def rotate(rows):
    """Hadamard transform of the last dimension in float32, one IEEE operation a step."""
    rows = np.asarray(rows, np.float32).copy()
    size = rows.shape[-1]
    stride = 1
    while stride < size:
        pairs = rows.reshape(*rows.shape[:-1], size // (2 * stride), 2, stride)
        a, c = pairs[..., 0, :].copy(), pairs[..., 1, :].copy()
        pairs[..., 0, :], pairs[..., 1, :] = a + c, a - c
        stride *= 2
    return rows * np.float32(1 / np.sqrt(np.float64(size)))


def codes(keys, thresholds):
    """[tokens, heads, dim] -> codes of the same shape; thresholds [heads, buckets - 1]."""
    return (rotate(keys)[..., None] > thresholds[:, None, :]).sum(-1)


def query_integers(query):
    """[heads, dim] -> integers of the dot estimator."""
    most = np.float32(2 ** (QUERY_BITS - 1) - 1)
    turned = rotate(query)
    scale = np.abs(turned).max(-1, keepdims=True) / most
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, np.clip(np.rint(turned / scale), -most, most), 0).astype(np.int64)


def scores(query, key_codes, buckets, estimator="dot", query_thresholds=None):
    """[heads, dim] and codes [tokens, kv_heads, dim] -> scores [heads, tokens], larger is better."""
    group = query.shape[0] // key_codes.shape[1]
    of_head = np.repeat(key_codes, group, axis=1)
    if estimator == "dot":
        return np.einsum("hd,thd->ht", query_integers(query), 2 * of_head - (buckets - 1))
    query_codes = codes(query[None], np.repeat(query_thresholds, group, axis=0))[0]
    return -np.abs(query_codes[None] - of_head).sum(-1).T


def select(row_scores, budget, recent=1):
    """Positions of one head's best tokens, ascending: better score first, among equals the later one."""
    tokens = len(row_scores)
    forced = np.arange(max(tokens - recent, 0), tokens)
    order = np.lexsort((-np.arange(tokens), -row_scores))
    best = [token for token in order if token not in set(forced)][: max(min(budget, tokens) - len(forced), 0)]
    return np.sort(np.concatenate([forced, np.array(best, int)])).astype(int)


def attend(query, keys, values, positions, scale=None):
    """Attention in double of one head: query [dim], keys and values [tokens, dim]. Returns (output, lse)."""
    query, keys, values = (np.asarray(x, np.float64) for x in (query, keys, values))
    logits = keys[positions] @ query * (scale or 1 / np.sqrt(len(query)))
    top = logits.max()
    weights = np.exp(logits - top)
    return weights @ values[positions] / weights.sum(), top + np.log(weights.sum())
