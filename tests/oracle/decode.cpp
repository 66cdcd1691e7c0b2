// One decode step of one sequence, composed of the steps of the other files.
#include "tests/oracle/decode.hpp"

#include "tests/oracle/codes.hpp"

namespace adamas::oracle {
namespace {

void append(Output& output, const HeadOutput& head) {
  output.out.insert(output.out.end(), head.out.begin(), head.out.end());
  output.lse.push_back(head.lse);
}

/// The selection that serves query head `head` of row `row`.
const Selection& selection_of(const Config& config, const Call& call,
                              const std::vector<Selection>& selections, int row, int64_t head) {
  const int64_t selecting = config.scope == Scope::kKvHead ? head / config.group : head;
  return selections.at(static_cast<size_t>(row * selecting_heads(config, call) + selecting));
}

}  // namespace

Output attend_all(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
                  const Rows<float>& values, const std::vector<Selection>& selections) {
  Output output;
  for (int row = 0; row < config.query_rows; ++row) {
    for (int64_t head = 0; head < queries.heads; ++head) {
      const Selection& selection = selection_of(config, call, selections, row, head);
      append(output, attend(config, call, queries.at(row, head), head, keys, values, selection.chosen()));
    }
    output.is_dense.push_back(0);
  }
  return output;
}

Output dense(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
             const Rows<float>& values) {
  Output output;
  for (int row = 0; row < config.query_rows; ++row) {
    const std::vector<int32_t> positions = all_positions(visible(config, call, keys.count(), row));
    for (int64_t head = 0; head < queries.heads; ++head) {
      append(output, attend(config, call, queries.at(row, head), head, keys, values, positions));
    }
    output.is_dense.push_back(1);
  }
  return output;
}

Output decode(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
              const Rows<float>& values, const Rows<uint8_t>& key_codes, const Thresholds& thresholds) {
  const std::vector<int32_t> query_integers = encode_queries(config, queries, thresholds.query);
  const std::vector<int64_t> all_scores =
      scores(config, call, Rows<int32_t>(query_integers, queries.heads, queries.dim), key_codes);
  const std::vector<Selection> selections = select_all(config, call, keys.count(), all_scores);

  const int64_t dense_below = call.dense_below < 0 ? config.budget : call.dense_below;
  Output output;
  for (int row = 0; row < config.query_rows; ++row) {
    const Range seen = visible(config, call, keys.count(), row);
    const bool is_dense = seen.size() <= dense_below;
    const std::vector<int32_t> everything = is_dense ? all_positions(seen) : std::vector<int32_t>{};
    for (int64_t head = 0; head < queries.heads; ++head) {
      const auto positions = is_dense ? std::span<const int32_t>(everything)
                                      : selection_of(config, call, selections, row, head).chosen();
      append(output, attend(config, call, queries.at(row, head), head, keys, values, positions));
    }
    output.is_dense.push_back(is_dense ? 1 : 0);
  }
  return output;
}

Output decode(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
              const Rows<float>& values, const Thresholds& thresholds) {
  const std::vector<uint8_t> codes = encode_keys(config, keys, thresholds.key);
  return decode(config, call, queries, keys, values, Rows<uint8_t>(codes, keys.heads, keys.dim), thresholds);
}

}  // namespace adamas::oracle
