// What the oracle is told: the shape of a problem, the data of a call, and views of plain dense arrays.
//
// The oracle is a second, slow, independent reading of the contract. It includes nothing of the product,
// so that an error in shared code cannot hide. Every array is dense, row-major and already widened to float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "tests/oracle/numbers.hpp"

namespace adamas::oracle {

enum class Estimator { kDot, kManhattan };
enum class Scope { kQueryHead, kKvHead };

/// The compiled-in part of a problem, in the terms of the Spec. Not validated: tests pass what can be.
struct Config {
  int head_dim = 128;
  int value_dim = 128;
  int hadamard = 128;  ///< block size m of the transform; divides head_dim
  int buckets = 4;     ///< B: 2, 4, 8 or 16
  Estimator estimator = Estimator::kDot;
  int query_bits = 4;  ///< dot only
  int budget = 128;    ///< tokens one selection may hold, forced ones included
  int sink = 0;
  int recent = 1;
  int group = 1;  ///< query heads per KV head
  Scope scope = Scope::kQueryHead;
  int query_rows = 1;  ///< R; row r of a sequence of N tokens stands at position N - R + r
  Format kv_type = Format::kF16;
  Format q_type = Format::kF16;
  Format out_type = Format::kF16;
  bool lse = true;
  bool soft_cap = false;
  bool window = false;
  bool sink_logits = false;
};

/// The data of one call for one sequence. A value whose switch is off in Config is ignored.
struct Call {
  int kv_heads = 1;
  float scale = 1.0f;                   ///< logit = scale * q.k
  float soft_cap = 0.0f;                ///< logit = cap * tanh(logit / cap)
  int64_t window = 0;                   ///< only positions > own - window are visible
  std::vector<float> sink_logits = {};  ///< [Hq], denominator only
  int64_t dense_below = -1;  ///< rows that see at most this many tokens attend to all; -1 = the budget
  /// kF8E4M3: what stored elements are times; [1] for all or [Hkv].
  std::vector<float> key_scale = {}, value_scale = {};
  std::vector<int> row_budget = {};  ///< [R] own budget of a row, cut to 0..budget; empty = budget for all
};

/// Ascending thresholds of every KV head, [Hkv][B-1] each. `query` is used by manhattan only.
struct Thresholds {
  std::vector<float> key;
  std::vector<float> query;
};

/// A read-only dense array [count][heads][dim] of T: queries, keys, values or codes of one sequence.
/// `count` is R for queries and N for the cache. The caller keeps the data alive.
template <class T>
struct Rows {
  std::span<const T> data;
  int64_t heads = 1;
  int64_t dim = 1;

  Rows(std::span<const T> data_in, int64_t heads_in, int64_t dim_in)
      : data(data_in), heads(heads_in), dim(dim_in) {}
  Rows(const std::vector<T>& data_in, int64_t heads_in, int64_t dim_in)
      : data(data_in), heads(heads_in), dim(dim_in) {}

  int64_t count() const { return static_cast<int64_t>(data.size()) / (heads * dim); }
  std::span<const T> at(int64_t index, int64_t head) const {
    return data.subspan(static_cast<size_t>((index * heads + head) * dim), static_cast<size_t>(dim));
  }
  /// The first `n` of the `count` entries: a sequence cut short.
  Rows first(int64_t n) const { return {data.first(static_cast<size_t>(n * heads * dim)), heads, dim}; }
};

/// Half-open range of positions.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

/// Heads that make a selection of their own: query heads, or KV heads with scope kv_head.
inline int64_t selecting_heads(const Config& config, const Call& call) {
  return config.scope == Scope::kKvHead ? call.kv_heads : int64_t{call.kv_heads} * config.group;
}

/// Positions that row `row` of `config.query_rows` sees in a sequence of `tokens`; empty if it stands before
/// 0.
Range visible(const Config& config, const Call& call, int64_t tokens, int row);

}  // namespace adamas::oracle
