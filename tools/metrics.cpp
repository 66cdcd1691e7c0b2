// Accuracy against exact attention: see metrics.hpp.
#include "tools/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include "codegen/facts.hpp"
#include "runtime/numbers.hpp"

namespace adamas::tools {
namespace {

std::vector<float> widen(const std::vector<std::byte>& bytes, codegen::ElementType type) {
  std::vector<float> values(bytes.size() / codegen::element_bytes(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = runtime::load_element(bytes.data(), static_cast<std::int64_t>(i), type);
  }
  return values;
}

/// Runs body(i) for 0 .. count - 1, shared out over the machine's cores.
template <class Body>
void over_cores(int count, Body&& body) {
  const int workers = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, count);
  std::vector<std::jthread> threads;
  for (int w = 0; w < workers; ++w) {
    threads.emplace_back([&body, w, workers, count] {
      for (int i = w; i < count; i += workers)
        body(i);
    });
  }
}

double norm(const double* values, int count) {
  return std::sqrt(std::inner_product(values, values + count, values, 0.0));
}

}  // namespace

ExactAttention::ExactAttention(const DumpLayer& layer, double scale)
    : layer_(layer),
      logits_(static_cast<std::size_t>(layer.queries) * layer.query_heads * layer.tokens),
      dense_(static_cast<std::size_t>(layer.queries) * layer.query_heads * layer.value_dim) {
  const auto q = widen(layer.q, layer.q_type), k = widen(layer.k, layer.kv_type),
             v = widen(layer.v, layer.kv_type);
  over_cores(layer.queries * layer.query_heads, [&](int row) {
    const int query = row / layer.query_heads, head = row % layer.query_heads, kv_head = head / layer.group();
    const float* query_row = q.data() + static_cast<std::size_t>(row) * layer.head_dim;
    double* logit = logits_.data() + static_cast<std::size_t>(row) * layer.tokens;
    double* out = dense_.data() + static_cast<std::size_t>(row) * layer.value_dim;
    const auto visible = layer.visible(query);
    for (std::int64_t token = 0; token < visible; ++token) {
      const float* key = k.data() + (token * layer.kv_heads + kv_head) * layer.head_dim;
      double sum = 0;
      for (int i = 0; i < layer.head_dim; ++i)
        sum += static_cast<double>(query_row[i]) * key[i];
      logit[token] = scale * sum;
    }
    const double top = *std::max_element(logit, logit + visible);
    double total = 0;
    for (std::int64_t token = 0; token < visible; ++token) {
      const double weight = std::exp(logit[token] - top);
      const float* value = v.data() + (token * layer.kv_heads + kv_head) * layer.value_dim;
      for (int i = 0; i < layer.value_dim; ++i)
        out[i] += weight * value[i];
      total += weight;
    }
    for (int i = 0; i < layer.value_dim; ++i)
      out[i] /= total;
  });
}

std::vector<std::int32_t> ExactAttention::top(const codegen::Spec& spec, int query, int first_head,
                                              int heads) const {
  const auto visible = static_cast<std::int32_t>(layer_.visible(query));
  std::vector<double> score(static_cast<std::size_t>(visible), -INFINITY);
  for (int head = first_head; head < first_head + heads; ++head) {
    const double* logit = logits(query, head);
    for (std::int32_t t = 0; t < visible; ++t)
      score[t] = std::max(score[t], logit[t]);
  }
  for (std::int32_t t = 0; t < std::min(spec.sink, visible); ++t)
    score[t] = INFINITY;
  for (std::int32_t t = std::max(0, visible - spec.recent); t < visible; ++t)
    score[t] = INFINITY;

  std::vector<std::int32_t> order(static_cast<std::size_t>(visible));
  std::iota(order.begin(), order.end(), 0);
  const auto count = std::min(spec.budget, visible);
  const auto better = [&](std::int32_t a, std::int32_t b) {
    return score[a] != score[b] ? score[a] > score[b] : a > b;  // among equals the later position
  };
  std::nth_element(order.begin(), order.begin() + count - 1, order.end(), better);
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

Selection ExactAttention::best(const codegen::Spec& spec) const {
  const int per_kv_head = codegen::facts_of(spec).selections_per_kv_head;
  const int selections = layer_.kv_heads * per_kv_head, heads = layer_.group() / per_kv_head;
  Selection selection;
  selection.budget = spec.budget;
  selection.positions.assign(static_cast<std::size_t>(layer_.queries) * selections * spec.budget, -1);
  selection.counts.assign(static_cast<std::size_t>(layer_.queries) * selections, 0);
  over_cores(layer_.queries * selections, [&](int row) {
    const auto best = top(spec, row / selections, row % selections * heads, heads);
    std::copy(best.begin(), best.end(),
              selection.positions.begin() + static_cast<std::ptrdiff_t>(row) * spec.budget);
    selection.counts[row] = static_cast<std::int32_t>(best.size());
  });
  return selection;
}

Accuracy ExactAttention::compare(const codegen::Spec& spec, const LayerResult& result) const {
  const int per_kv_head = codegen::facts_of(spec).selections_per_kv_head;
  const int rows = layer_.queries * layer_.query_heads;
  std::vector<Accuracy> each(static_cast<std::size_t>(rows));
  over_cores(rows, [&](int row) {
    const int query = row / layer_.query_heads, head = row % layer_.query_heads;
    const int selection_row = query * layer_.kv_heads * per_kv_head + head / (layer_.group() / per_kv_head);
    const std::int32_t* selected = result.selection.positions.data() +
                                   static_cast<std::ptrdiff_t>(selection_row) * result.selection.budget;
    const std::int32_t count = result.selection.counts[selection_row];
    const auto best = top(spec, query, head, 1);

    std::vector<std::int32_t> common;
    std::set_intersection(best.begin(), best.end(), selected, selected + count, std::back_inserter(common));
    each[row].recall = static_cast<double>(common.size()) / static_cast<double>(best.size());

    const double* logit = logits(query, head);
    const auto visible = layer_.visible(query);
    const double top_logit = *std::max_element(logit, logit + visible);
    double total = 0, mass = 0;
    for (std::int64_t t = 0; t < visible; ++t)
      total += std::exp(logit[t] - top_logit);
    for (std::int32_t i = 0; i < count; ++i)
      mass += std::exp(logit[selected[i]] - top_logit);
    each[row].mass = mass / total;

    const double* dense = dense_.data() + static_cast<std::size_t>(row) * layer_.value_dim;
    const float* out = result.out.data() + static_cast<std::size_t>(row) * layer_.value_dim;
    std::vector<double> difference(static_cast<std::size_t>(layer_.value_dim));
    for (int i = 0; i < layer_.value_dim; ++i)
      difference[i] = out[i] - dense[i];
    each[row].rel_err = norm(difference.data(), layer_.value_dim) / norm(dense, layer_.value_dim);
  });
  Accuracy mean;
  for (const Accuracy& one : each) {
    mean.recall += one.recall / rows;
    mean.mass += one.mass / rows;
    mean.rel_err += one.rel_err / rows;
  }
  return mean;
}

}  // namespace adamas::tools
