"""evaluate: how much a model loses when it decodes sparsely, on a text of the user's own."""

from __future__ import annotations

import math
from typing import Any, Iterable, Optional

import torch

from .. import Spec
from ._cache import Cache
from ._model import disable, enable, install
from ._step import Step
from ._text import token_ids

_OBSERVED = 16  # steps of a run at which recall is measured


def evaluate(
    model: Any,
    text: Any,
    budgets: Iterable[int] = (64, 128, 256),
    estimators: Iterable[str] = ("dot",),
    *,
    decode_tokens: Optional[int] = None,
    dense_layers: int = 2,
    thresholds: Any = None,
    spec: str = "",
    tokenizer: Optional[Any] = None,
    max_tokens: Optional[int] = None,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Dense against sparse perplexity, and recall; prints a table and returns its rows.

    text           a str, or token ids; its last decode_tokens tokens (a quarter, 1,024 at most) are predicted one by
                   one, each from the true tokens before it, after a dense prefill of the rest
    budgets, estimators, dense_layers, thresholds, spec   as enable's
    tokenizer      for a str; None: what the model's name loads
    max_tokens     the text is cut there
    quiet          prints nothing

    A row: estimator ('dense' first), budget, perplexity, ratio to the dense one, recall = share of the tokens with the
    largest exact logits that was selected (mean over 16 steps, sparse layers and heads), attended = tokens that a
    sparse layer's head attended to, on average. The model is left as it was.
    """
    ids = token_ids(model, text, tokenizer, max_tokens)
    tokens = ids.shape[1]
    steps = decode_tokens if decode_tokens is not None else min(tokens // 4, 1024)
    if not 1 <= steps < tokens:
        raise ValueError(f"decode_tokens: {steps}; wanted 1..{tokens - 1} for a text of {tokens} tokens")

    installed = getattr(model, "_adamas", None)
    if installed is not None:
        disable(model)
    try:
        with torch.no_grad():
            dense = _dense_perplexity(model, ids, steps)
            rows = [_row("dense", None, dense, dense, None, None)]
            if not quiet:
                print(f"{tokens - steps} tokens of prefill, {steps} predicted one by one\n")
                print(
                    f"{'estimator':<10} {'budget':>6} {'perplexity':>11} {'ratio':>7} {'recall':>7} {'attended':>9}"
                )
                print(_line(rows[0]))
            for estimator in estimators:
                for budget in budgets:
                    enable(model, budget, estimator, dense_layers, thresholds, spec=spec)
                    rows.append(_sparse_row(model, ids, steps, dense))
                    disable(model)
                    if not quiet:
                        print(_line(rows[-1]))
    finally:
        if getattr(model, "_adamas", None) is not None:
            disable(model)
        if installed is not None:
            install(model, installed)
    return rows


def _dense_perplexity(model: Any, ids: torch.Tensor, steps: int) -> float:
    logits = model(ids, use_cache=False).logits[0, -steps - 1 : -1].float()
    return math.exp(torch.nn.functional.cross_entropy(logits, ids[0, -steps:]).item())


def _sparse_row(model: Any, ids: torch.Tensor, steps: int, dense: float) -> dict[str, Any]:
    settings = model._adamas
    cache = Cache(model, ids.shape[1])
    logits = model(ids[:, :-steps], past_key_values=cache).logits[0, -1:].float()
    # Tokens from the first predicted one on come one by one; the last one predicts nothing that is known.
    recall = _Recall(settings.budget, Spec.parse(next(iter(settings.kernels.values())).spec))
    settings.counters.clear()
    losses = []
    sparse_steps = [layer.step for layer in cache.layers if not layer.dense]
    for index in range(steps):
        token = ids[:, ids.shape[1] - steps + index]
        losses.append(torch.nn.functional.cross_entropy(logits, token).item())
        if index + 1 == steps:
            break
        observing = index % max(steps // _OBSERVED, 1) == 0
        for step in sparse_steps:
            step.observer = recall if observing else None
        logits = model(token[:, None], past_key_values=cache).logits[0].float()
    counted = settings.counters.read()
    sparse = counted["rows"] - counted["dense_requested"]
    dense_tokens = counted["dense_requested"] * (ids.shape[1] - steps / 2)  # the mean length of a step
    attended = (counted["tokens_attended"] - dense_tokens) / sparse if sparse else None
    perplexity = math.exp(sum(losses) / steps)
    return _row(settings.estimator, settings.budget, perplexity, dense, recall.mean(), attended)


class _Recall:
    """Looks at steps: which of the tokens with the largest exact logits were selected."""

    def __init__(self, budget: int, spec: Spec) -> None:
        self.budget = budget
        self.recent, self.sink = spec.recent or 0, spec.sink or 0
        self.found, self.heads = 0.0, 0

    def __call__(self, step: Step, query: torch.Tensor, keys: torch.Tensor) -> None:
        batch, heads, _ = query.shape
        positions = torch.empty(
            batch, step.plan.selections, self.budget, dtype=torch.int32, device=query.device
        )
        counts = torch.empty(batch, step.plan.selections, dtype=torch.int32, device=query.device)
        step.plan.select(
            query.detach(),
            step.view,
            step.codes,
            step.lengths,
            positions,
            counts,
            starts=step.starts,
            query_thresholds=step.thresholds[1],
        )
        group = heads // keys.shape[1]
        positions = positions.repeat_interleave(heads // step.plan.selections, 1).long()
        for row in range(batch):
            start, length = int(step.starts[row]), int(step.lengths[row])
            if length <= self.budget:
                continue
            seen = keys[row, :, start : start + length].float().repeat_interleave(group, 0)
            logits = torch.einsum("hd,htd->ht", query[row].float(), seen)
            logits[:, : self.sink] = torch.inf
            logits[:, length - self.recent :] = torch.inf
            best = torch.zeros_like(logits, dtype=torch.bool).scatter_(
                1, logits.topk(self.budget).indices, True
            )
            self.found += best.gather(1, positions[row]).float().mean(1).sum().item()
            self.heads += heads

    def mean(self) -> Optional[float]:
        return self.found / self.heads if self.heads else None


def _row(
    estimator: str, budget: Optional[int], perplexity: float, dense: float, recall: Any, attended: Any
) -> dict[str, Any]:
    return {
        "estimator": estimator,
        "budget": budget,
        "perplexity": perplexity,
        "ratio": perplexity / dense,
        "recall": recall,
        "attended": attended,
    }


def _line(row: dict[str, Any]) -> str:
    recall = "-" if row["recall"] is None else f"{row['recall']:.4f}"
    attended = "-" if row["attended"] is None else f"{row['attended']:.1f}"
    budget = "-" if row["budget"] is None else row["budget"]
    return f"{row['estimator']:<10} {budget:>6} {row['perplexity']:>11.4f} {row['ratio']:>7.4f} {recall:>7} {attended:>9}"
