// `adamas bench`: median time of a decode step on random data, against the library's own dense decode and
// against the memory's measured bandwidth.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <sstream>

#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "codegen/facts.hpp"
#include "tools/bandwidth.hpp"
#include "tools/cli.hpp"
#include "tools/timing.hpp"
#include "tools/traffic.hpp"

namespace adamas::tools {
namespace {

using codegen::ElementType;
using codegen::Error;

struct Options {
  std::string device = "auto", spec, tuning, shapes = "batch=1 kv_heads=8 tokens=32768";
  bool json = false;
};

struct BenchShape {
  int batch = 1, kv_heads = 8;
  std::int64_t tokens = 32768;
};

std::vector<std::int64_t> parse_list(const std::string& key, const std::string& text) {
  std::vector<std::int64_t> values;
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    std::size_t used = 0;
    std::int64_t value = 0;
    try {
      value = std::stoll(item, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != item.size() || value < 1) {
      throw Error(ADAMAS_INVALID_ARGUMENT, "shapes." + key, item, "must be a positive integer");
    }
    values.push_back(value);
  }
  return values;
}

/// "batch=1,16 kv_heads=8 tokens=32768": the product of the lists.
std::vector<BenchShape> parse_shapes(const std::string& text) {
  std::vector<std::int64_t> batches{1}, heads{8}, tokens{32768};
  std::stringstream stream(text);
  for (std::string word; stream >> word;) {
    const auto equals = word.find('=');
    const std::string key = word.substr(0, equals);
    auto* list = key == "batch" ? &batches : key == "kv_heads" ? &heads : key == "tokens" ? &tokens : nullptr;
    if (list == nullptr || equals == std::string::npos) {
      throw Error(ADAMAS_INVALID_ARGUMENT, "shapes", word, "must be batch=, kv_heads= or tokens= and a list",
                  "example: \"batch=1,16 kv_heads=8 tokens=32768\"");
    }
    *list = parse_list(key, word.substr(equals + 1));
  }
  std::vector<BenchShape> shapes;
  for (const auto b : batches) {
    for (const auto h : heads) {
      for (const auto t : tokens)
        shapes.push_back({static_cast<int>(b), static_cast<int>(h), t});
    }
  }
  return shapes;
}

/// About normal values in steps of 1/64, which every element type holds exactly.
std::vector<std::byte> random_rows(std::size_t elements, ElementType type, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0F, 48.0F);
  // Rows are cut from a pool at random places: filling gigabytes from a generator would take longer than the
  // bench.
  constexpr std::size_t kPool = std::size_t{1} << 20, kRun = 512;
  const std::size_t width = codegen::element_bytes(type);
  std::vector<std::byte> pool(kPool * width);
  for (std::size_t i = 0; i < kPool; ++i) {
    const float value = std::clamp(std::round(normal(random)), -127.0F, 127.0F) / 64.0F;
    const auto bits = std::bit_cast<std::uint32_t>(value);
    std::uint32_t stored = bits;
    if (type == ElementType::bf16) stored = bits >> 16;
    if (type == ElementType::f16) {
      stored =
          value == 0 ? 0 : (bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023);
    }
    std::memcpy(pool.data() + i * width, &stored, width);
  }
  std::vector<std::byte> rows(elements * width);
  for (std::size_t at = 0; at < elements; at += kRun) {
    const std::size_t run = std::min(kRun, elements - at);
    std::memcpy(rows.data() + at * width, pool.data() + random() % (kPool - kRun) * width, run * width);
  }
  return rows;
}

struct BenchResult {
  Timing sparse, dense;
  double bytes = 0, dense_bytes = 0;
  int sets = 1;
  std::string spec, tuning, target;  // canonical texts of what ran
};

/// One cache with its codes; several of them in turn keep the caches of the machine cold.
struct DataSet {
  Buffer<std::byte> key, value, codes;
};

BenchResult measure(const Context& context, const codegen::Spec& spec, const std::string& tuning,
                    const BenchShape& shape) {
  const bool paged = spec.cache_form == codegen::CacheForm::block_table;
  const std::int64_t pages_each = paged ? (shape.tokens + spec.page_size - 1) / spec.page_size : 1;
  const std::int64_t page_tokens = paged ? spec.page_size : shape.tokens;
  const std::int64_t slots = pages_each * page_tokens * shape.batch;
  const Kernel kernel = context.prepare(
      spec.text(), {.max_batch = shape.batch, .kv_heads = shape.kv_heads, .max_tokens = shape.tokens},
      tuning);
  const Plan plan = kernel.plan({.batch = shape.batch, .dense_below = 0});
  BenchResult result;
  const auto info = kernel.info();
  result.spec = info.spec;
  result.tuning = info.tuning;
  result.target = info.target;
  result.bytes =
      shape.batch * sparse_bytes(spec, static_cast<int>(info.code_row_bytes), shape.kv_heads, shape.tokens);
  result.dense_bytes = shape.batch * dense_bytes(spec, shape.kv_heads, shape.tokens);

  // Enough sets that a step's codes and rows have left every cache before their turn comes again.
  constexpr double kColdBytes = 256e6, kMostBytes = 2e9;
  result.sets = static_cast<int>(
      std::clamp(kColdBytes / result.bytes, 1.0, std::max(1.0, kMostBytes / result.dense_bytes)));
  const std::int64_t key_token = std::int64_t{shape.kv_heads} * spec.head_dim;
  const std::int64_t value_token = std::int64_t{shape.kv_heads} * spec.value_dim;
  std::vector<DataSet> sets;
  for (int i = 0; i < result.sets; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    sets.push_back({context.upload<std::byte>(random_rows(slots * key_token, spec.kv_type, 2 * seed + 1)),
                    context.upload<std::byte>(random_rows(slots * value_token, spec.kv_type, 2 * seed + 2)),
                    context.allocate<std::byte>(info.code_bytes)});
  }
  const int query_heads = shape.kv_heads * spec.group;
  const std::size_t rows = static_cast<std::size_t>(shape.batch) * spec.query_rows;
  const auto query =
      context.upload<std::byte>(random_rows(rows * query_heads * spec.head_dim, spec.q_type, 0x51));
  const auto out = context.allocate<std::byte>(rows * query_heads * spec.value_dim *
                                               codegen::element_bytes(spec.out_type));
  const auto workspace =
      context.allocate<std::byte>(std::max(plan.info().workspace_bytes, plan.info().dense_workspace_bytes));
  std::vector<std::int32_t> page_list(static_cast<std::size_t>(pages_each * shape.batch));
  std::iota(page_list.begin(), page_list.end(), 0);
  const auto table = context.upload<std::int32_t>(page_list);
  const auto lengths = context.upload<std::int32_t>(
      std::vector<std::int32_t>(shape.batch, static_cast<std::int32_t>(shape.tokens)));
  std::vector<float> points(static_cast<std::size_t>(shape.kv_heads) * (spec.buckets - 1));
  for (std::size_t i = 0; i < points.size(); ++i) {
    points[i] = (static_cast<float>(i % (spec.buckets - 1)) + 1 - static_cast<float>(spec.buckets) / 2) *
                2.4F / static_cast<float>(spec.buckets);
  }
  const auto thresholds = context.upload<float>(points);
  const auto sinks = context.upload<float>(std::vector<float>(query_heads, 0.0F));

  const auto cache_of = [&](const DataSet& set) {
    return Cache{.key = set.key.data(),
                 .value = set.value.data(),
                 .key_page_stride = key_token * page_tokens,
                 .key_token_stride = key_token,
                 .key_head_stride = spec.head_dim,
                 .value_page_stride = value_token * page_tokens,
                 .value_token_stride = value_token,
                 .value_head_stride = spec.value_dim,
                 .table = table.data(),
                 .table_stride = pages_each};
  };
  for (const DataSet& set : sets) {
    kernel.encode({.cache = cache_of(set),
                   .codes = set.codes.data(),
                   .count = slots,
                   .key_thresholds = thresholds.data()});
  }
  const auto call_for = [&](int step) {
    const DataSet& set = sets[static_cast<std::size_t>(step) % sets.size()];
    return Call{.workspace = workspace.data(),
                .workspace_bytes = workspace.size(),
                .query = query.data(),
                .cache = cache_of(set),
                .codes = set.codes.data(),
                .lengths = lengths.data(),
                .query_thresholds = thresholds.data(),
                .soft_cap = spec.soft_cap ? 30.0F : 0.0F,
                .window = spec.window ? 4096 : 0,
                .sink_logits = sinks.data(),
                .out = out.data()};
  };
  const int steps = std::max(result.sets, 4);
  result.sparse = time_steps(context, steps, [&](int i) { plan.decode(call_for(i)); });
  result.dense = time_steps(context, steps, [&](int i) { plan.dense(call_for(i)); });
  return result;
}

int run(const Options& options) {
  Progress progress(options.json);
  const Context context(options.device.c_str());
  const auto spec = codegen::Spec::parse(options.spec);
  progress.say("measuring read bandwidth");
  const double bandwidth = measure_bandwidth(*runtime::open_device(context.info().device, 0));

  Table table({"batch", "K/V heads", "tokens", "us", "p10", "p90", "dense us", "speed-up", "GB/s", "roofline",
               "dense GB/s", "dense roofline"});
  for (const BenchShape& shape : parse_shapes(options.shapes)) {
    progress.say(fmt::format("batch {} kv_heads {} tokens {}", shape.batch, shape.kv_heads, shape.tokens));
    const BenchResult result = measure(context, spec, options.tuning, shape);
    const double gbps = result.bytes / result.sparse.median / 1e3;
    const double dense_gbps = result.dense_bytes / result.dense.median / 1e3;
    const double speedup = result.dense.median / result.sparse.median;
    if (options.json) {
      print_json({{"device", context.info().device},
                  {"device_name", context.info().device_name},
                  {"spec", result.spec},
                  {"tuning", result.tuning},
                  {"target", result.target},
                  {"batch", shape.batch},
                  {"kv_heads", shape.kv_heads},
                  {"tokens", shape.tokens},
                  {"us", result.sparse.median},
                  {"us_p10", result.sparse.p10},
                  {"us_p90", result.sparse.p90},
                  {"dense_us", result.dense.median},
                  {"dense_us_p10", result.dense.p10},
                  {"dense_us_p90", result.dense.p90},
                  {"speedup", speedup},
                  {"gbps", gbps},
                  {"roofline", gbps / bandwidth},
                  {"dense_gbps", dense_gbps},
                  {"dense_roofline", dense_gbps / bandwidth},
                  {"read_gbps", bandwidth},
                  {"sets", result.sets}});
      continue;
    }
    table.add({fmt::to_string(shape.batch), fmt::to_string(shape.kv_heads), fmt::to_string(shape.tokens),
               fmt::format("{:.1f}", result.sparse.median), fmt::format("{:.1f}", result.sparse.p10),
               fmt::format("{:.1f}", result.sparse.p90), fmt::format("{:.1f}", result.dense.median),
               fmt::format("{:.2f}x", speedup), fmt::format("{:.1f}", gbps),
               fmt::format("{:.0f} %", 100 * gbps / bandwidth), fmt::format("{:.1f}", dense_gbps),
               fmt::format("{:.0f} %", 100 * dense_gbps / bandwidth)});
  }
  if (options.json) return 0;
  progress.say("");
  fmt::print("device  {} ({}), read bandwidth {:.1f} GB/s\nspec    {}\n\n", context.info().device,
             context.info().device_name, bandwidth, spec.text());
  table.print();
  fmt::print(
      "\nus        one decode step of the whole batch, median (p10, p90) over passes of steps enqueued back "
      "to back\n"
      "dense     this library's own dense decode of the same shape, in the same run\n"
      "roofline  time to read the step's bytes at the measured bandwidth, over the time it took\n"
      "Random data; several caches in turn, so that a step finds none of its own data in the machine's "
      "caches.\n");
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("bench", "Time of a decode step on random data, sparse against dense");
  command->add_option("--device", options->device, "auto, cpu or cuda:N")->capture_default_str();
  command->add_option("--spec", options->spec, "Spec keys; what is left out takes its default");
  command->add_option("--tuning", options->tuning, "Tuning keys");
  command
      ->add_option("--shapes", options->shapes, "lists of batch=, kv_heads=, tokens=; their product is run")
      ->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object a line");
  command->footer(
      "Example:\n  adamas bench --device cpu --spec \"group=4 budget=256\" --shapes \"batch=1,16 kv_heads=8 "
      "tokens=32768\"");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace adamas::tools
