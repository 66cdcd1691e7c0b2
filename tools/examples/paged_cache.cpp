// A host in C++ with a paged cache: two sequences share a pool of pages, grow by a token a step, and decode
// as one batch. New tokens are encoded by their slots, as vLLM's slot_mapping names them; the codes follow
// the pages.
#include <adamas/adamas.hpp>
#include <iostream>
#include <random>
#include <vector>

namespace {

constexpr int kPage = 16, kPages = 300, kHeads = 2, kGroup = 4, kDim = 128, kColumns = 140;
constexpr int kRow = kHeads * kDim;

/// Which pages each sequence has, as an engine's block manager knows it.
struct BlockTable {
  std::vector<std::int32_t> table = std::vector<std::int32_t>(2 * kColumns, -1), lengths{0, 0};
  int next_page = kPages;  // pages are handed out from the end

  /// The slot of a sequence's next token.
  std::int32_t append(int sequence) {
    const int position = lengths[sequence]++;
    std::int32_t& page = table[sequence * kColumns + position / kPage];
    if (position % kPage == 0) page = --next_page;
    return page * kPage + position % kPage;
  }
};

std::vector<std::uint16_t> some_bf16(std::size_t count) {
  static std::minstd_rand random(1);
  std::vector<std::uint16_t> values(count);
  for (auto& value : values)
    value = static_cast<std::uint16_t>(0x3d00 + random() % 0x280 + (random() % 2 << 15));
  return values;
}

}  // namespace

int main() try {
  const adamas::Context ctx("auto");
  const auto kernel =
      ctx.prepare("head_dim=128 group=4 budget=128 kv_type=bf16 cache_form=block_table page_size=16",
                  {.max_batch = 2, .kv_heads = kHeads, .max_tokens = 2048, .max_slots = kPages * kPage});
  const auto plan = kernel.plan({.batch = 2});

  // The engine's pool: [page][K, V][token][head][dim]. Its numbers are there from the start, to be short.
  const auto pool = ctx.upload<std::uint16_t>(some_bf16(kPages * 2 * kPage * kRow));
  const auto codes = ctx.allocate<char>(kernel.info().code_bytes);
  const auto work = ctx.allocate<char>(plan.info().workspace_bytes);
  const auto counters = ctx.allocate<char>(ADAMAS_COUNTERS_BYTES);
  const auto thresholds = ctx.upload<float>(std::vector{-0.5F, 0.F, 0.5F, -0.5F, 0.F, 0.5F});
  const auto query = ctx.upload<std::uint16_t>(some_bf16(2 * kGroup * kRow));
  const auto out = ctx.allocate<std::uint16_t>(2 * kGroup * kRow);
  const auto table = ctx.allocate<std::int32_t>(2 * kColumns), lengths = ctx.allocate<std::int32_t>(2);
  const auto slot_mapping = ctx.allocate<std::int32_t>(2500);
  adamas::Cache cache{.key = pool.data(), .value = pool.data() + kPage * kRow};
  cache.key_page_stride = cache.value_page_stride = 2 * kPage * kRow;
  cache.key_token_stride = cache.value_token_stride = kRow;
  cache.key_head_stride = cache.value_head_stride = kDim;
  cache.table = table.data();
  cache.table_stride = kColumns;

  adamas::EncodeArgs prompts{.cache = cache, .codes = codes.data(), .slots = slot_mapping.data()};
  prompts.key_thresholds = thresholds.data();
  adamas::Call call{.workspace = work.data(), .workspace_bytes = work.size(), .query = query.data()};
  call.cache = cache;
  call.codes = codes.data();
  call.lengths = lengths.data();
  call.out = out.data();
  call.counters = counters.data();
  call.key_thresholds = thresholds.data();

  BlockTable blocks;
  std::vector<std::int32_t> new_slots;  // the prompts, then a token of each sequence a step
  for (int i = 0; i < 2000; ++i)
    new_slots.push_back(blocks.append(0));
  for (int i = 0; i < 100; ++i)
    new_slots.push_back(blocks.append(1));
  ctx.clear(counters.data());
  slot_mapping.upload(new_slots);
  prompts.count = static_cast<std::int64_t>(new_slots.size());
  kernel.encode(prompts);
  for (int step = 0; step < 8; ++step) {
    table.upload(blocks.table);
    lengths.upload(blocks.lengths);
    plan.decode(call);
    new_slots = {blocks.append(0), blocks.append(1)};
    slot_mapping.upload(new_slots);
    call.append_slots = slot_mapping.data();  // their codes are made by the next decode
  }
  // Are the codes still those of the keys? In the last 100 pages of the pool, where the first ones went.
  adamas::CheckArgs check{.cache = cache, .codes = codes.data(), .first_slot = (kPages - 100) * kPage};
  check.count = 100 * kPage;
  check.key_thresholds = thresholds.data();
  check.counters = counters.data();
  kernel.check(check);
  const adamas::Counters counted = ctx.read(counters.data());
  std::cout << counted.rows << " rows, " << counted.dense_short << " of them short and dense; "
            << counted.tokens_checked << " token-heads checked, " << counted.tokens_stale << " out of step\n";
} catch (const adamas::Error& error) {
  std::cerr << adamas_status_name(error.status()) << ": " << error.what() << "\n";
  return 1;
}
