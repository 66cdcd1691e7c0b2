// One batch of sequences for an emulated Spec: oracle data laid out as a host would hold it (shuffled pages,
// padded strides, ragged lengths, starts), the arguments of the kernels over it, and the stages of each
// operation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "codegen/facts.hpp"
#include "codegen/generator.hpp"
#include "templates/args.h"
#include "tests/cuda_emulation/block.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::cuda_emulation {

/// What a decode writes besides the output: nothing, or `positions` (or slots in their place) and `counts`.
enum class Lists { none, positions, slots };

/// Whether a Spec of kSpecs has the decode unit.
bool has_decode_unit(int index);

class Problem {
 public:
  static constexpr int kKvHeads = 2;

  /// Sequences of the given lengths; `kind` is what keys and queries look like.
  Problem(int index, oracle::RowKind kind, std::vector<int> lengths);

  // Operations: the stages that the runtime launches. Codes persist from one to the next.
  void encode();        ///< the tokens of all sequences, by slot list
  void encode_all();    ///< every slot of the cache
  void export_codes();  ///< -> bytes
  void import_codes();  ///< bytes -> codes
  /// Every slot of the cache against its key; `bytes` then says what was out of step, [slots, kKvHeads].
  void check_codes(bool mend);
  void select(bool slots);
  void decode_by_stages(std::int64_t dense_below);
  /// By the decode unit, in clusters of `blocks` (0: as many as its generator wants). Lists only where no row
  /// attends to more than they hold.
  LaunchFacts decode_in_clusters(int blocks, std::int64_t dense_below, Lists lists);
  void dense();
  void attend();  ///< over `positions` and `counts` as they stand

  /// Makes the keys of `count` positions from `first` on, of all sequences that have them, look like the
  /// queries: their scores are far above the others.
  void make_burst(int first, int count);

  /// Makes an element of the keys of every `period`-th position infinite, so that the logit of the first
  /// query head of a group in the first row is -inf.
  void make_infinite(int period);

  int rows() const { return batch() * spec.query_rows; }
  int batch() const { return static_cast<int>(lengths.size()); }
  int selections() const { return kKvHeads * facts.selections_per_kv_head; }
  int query_heads() const { return kKvHeads * spec.group; }
  std::int64_t slots() const { return args.pages * args.page_tokens; }
  /// Slot of a position of a sequence: of its code and its K, and of its V.
  std::int64_t slot(int sequence, int position) const;
  std::int64_t value_slot(int sequence, int position) const;
  /// Output of one query head of one row, widened.
  std::vector<double> out(int row, int query_head) const;

  int index;
  codegen::Spec spec;
  codegen::Tuning tuning;
  codegen::Facts facts;
  oracle::Config config;
  oracle::Call call;
  std::vector<int> lengths;
  std::vector<oracle::Problem> sequences;
  oracle::Thresholds thresholds;  ///< of all sequences

  adamas_abi::Args args{};
  adamas_abi::Counters counters{};
  std::vector<unsigned char> codes;
  std::vector<unsigned char> bytes;      ///< [slots, kKvHeads, head_dim]
  std::vector<signed char> query_codes;  ///< [rows, query heads, head_dim]
  std::vector<int> scores;               ///< [rows, selections, max_tokens]
  std::vector<int> positions, out_positions, counts, out_counts;
  std::vector<float> lse;
  std::int64_t max_tokens = 0;
  int most_ring_stages = 4;  ///< of decode_in_clusters, where its generator has room for more
  std::int64_t capacity = 0;  ///< tokens that decode_in_clusters is to have room for; 0: max_tokens
  int processors = 132;       ///< of the device that encode and decode_in_clusters are sized for
  codegen::Stage decoded_by = codegen::Stage::decode;  ///< what decode_in_clusters has launched

 private:
  void lay_out_cache(oracle::Random& random);
  void write_rows();  ///< keys and values of the sequences -> cache
  void write_row(const void* array, std::int64_t offset, std::int64_t page, std::int64_t page_stride,
                 std::int64_t in_page, std::span<const float> row, float scale);
  std::int64_t slot_in(const std::vector<int>& table, int sequence, int position) const;
  void prepare_decode(std::int64_t dense_below);
  std::int64_t dense_chunks(std::int64_t tokens) const;  ///< the most of a row of that many tokens
  void sum_short_rows();  ///< what comes before the decode unit
  void lay_out_queries();
  void run(std::initializer_list<codegen::Stage> stages, int chunks, std::int64_t slot_count = 0);

  std::vector<std::uint64_t> keys_, values_;  // words: room and alignment for any element type
  std::vector<unsigned long long> addresses_;
  std::vector<int> table_, value_table_, starts_, indptr_;
  std::vector<std::uint32_t> query_, out_;
  std::vector<std::uint64_t> prepared_, order_keys_;
  std::vector<float> partial_, sink_logits_;
};

}  // namespace adamas::cuda_emulation
