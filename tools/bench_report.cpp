// Output of bench: see bench_report.hpp.
#include "tools/bench_report.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "tools/cli.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using nlohmann::ordered_json;

double gbps(double bytes, double us) { return bytes / us / 1e3; }

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

std::string microseconds(double us) { return fmt::format("{:.{}f}", us, us < 100 ? 2 : 1); }

int query_heads(const BenchShape& shape, const codegen::Spec& spec) { return shape.kv_heads * spec.group; }

ordered_json device_json(const BenchMachine& machine) {
  const auto info = machine.context.info();
  return {{"device", info.device}, {"device_name", info.device_name}, {"read_gbps", machine.read_gbps}};
}

void put_shape(ordered_json& object, const BenchShape& shape, const codegen::Spec& spec) {
  object["batch"] = shape.batch();
  object["query_heads"] = query_heads(shape, spec);
  object["kv_heads"] = shape.kv_heads;
  object["tokens"] = shape.capacity;
  object["tokens_total"] = shape.total_tokens();
  object["ragged"] = shape.ragged;
  object["head_dim"] = spec.head_dim;
  object["budget"] = spec.budget;
}

void put_timing(ordered_json& object, const std::string& name, const Timing& timing) {
  object[name] = timing.median;
  object[name + "_p10"] = timing.p10;
  object[name + "_p90"] = timing.p90;
}

/// How much of what it takes to leave nothing of a cache in the machine's own is read between two uses of it;
/// 1: all.
double cold_share(const BenchRow& row, const BenchMachine& machine) {
  return std::min(1.0, (row.sets - 1) * row.bytes / machine.cold_bytes);
}

void print_coldness(const std::vector<ReportRow>& rows, const BenchMachine& machine) {
  double least = 1, memory = 0;
  for (const auto& [row, reference] : rows) {
    least = std::min(least, cold_share(row, machine));
    const int sets =
        rotated_sets(row.bytes, row.set_bytes, machine.cold_bytes, std::numeric_limits<double>::infinity());
    if (row.sets < sets) memory = std::max(memory, row.set_bytes * sets);
  }
  if (least == 1) {
    fmt::print(
        "Random data; caches in turn, so that a step finds none of its own data in the machine's caches.\n");
    return;
  }
  fmt::print(
      "Random data; caches in turn, but few: a step may find some of its codes and tokens in the machine's "
      "caches.\nBetween two uses of a cache {} of the {:.0f} MB are read that leave nothing of it",
      percent(least), machine.cold_bytes / 1e6);
  if (memory > 0) {
    fmt::print("; --memory {:.0f} has room for more.\n", std::ceil(memory / 1e9));
  } else {
    fmt::print(": longer sequences read more.\n");
  }
}

void print_stages(const std::vector<ReportRow>& rows, const BenchMachine& machine) {
  Table table({"K/V heads", "tokens", "budget", "scan ns", "from cache", "scan GB/s", "share", "prepare us",
               "scan us", "select us", "attend us"});
  int threads = 1;
  for (const auto& [row, reference] : rows) {
    const StageTimes& stages = *row.stages;
    threads = stages.threads;
    table.add({fmt::to_string(row.shape.kv_heads), row.shape.tokens_text(), fmt::to_string(row.spec.budget),
               fmt::format("{:.2f}", stages.ns(stages.scan)),
               fmt::format("{:.2f}", stages.ns(stages.warm_scan)),
               fmt::format("{:.1f}", stages.gbps(stages.scan)),
               percent(stages.gbps(stages.scan) / machine.read_gbps), microseconds(stages.prepare.median),
               microseconds(stages.scan.median), microseconds(stages.select.median),
               microseconds(stages.attend.median)});
  }
  fmt::print("\n");
  table.print();
  fmt::print("\nscan ns    of one thread for a token and query ({} threads), codes from memory\n", threads);
  fmt::print("from cache the same scan again at once\n");
  fmt::print("scan GB/s  codes read a second, and its share of the measured bandwidth\n");
  fmt::print("... us     the stages of a step one by one, medians\n");
}

}  // namespace

DenseReferences DenseReferences::read(const std::string& path) {
  std::ifstream file(path);
  if (!file)
    throw Error(ADAMAS_IO_ERROR, "dense", path, std::string("cannot be read: ") + std::strerror(errno));
  DenseReferences references;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    try {
      const auto object = nlohmann::json::parse(line);
      const Shape shape{object.at("batch"), object.at("query_heads"), object.at("kv_heads"),
                        object.at("tokens"), object.at("head_dim")};
      const DenseReference reference{.us = object.at("us"), .by = object.at("backend")};
      if (!(reference.us > 0)) {
        throw Error(ADAMAS_IO_ERROR, "dense", path, fmt::format("line {}: us must be positive", number));
      }
      const auto [known, fresh] = references.references_.emplace(shape, reference);
      if (!fresh && reference.us < known->second.us) known->second = reference;
    } catch (const nlohmann::json::exception& error) {
      throw Error(ADAMAS_IO_ERROR, "dense", path, fmt::format("line {}: {}", number, error.what()),
                  "tools/bench_torch.py prints such lines");
    }
  }
  return references;
}

std::optional<DenseReference> DenseReferences::find(const BenchRow& row, double read_gbps) const {
  if (row.shape.ragged) return DenseReference{.us = row.dense_bytes / read_gbps / 1e3, .by = "ideal"};
  const auto found = references_.find({row.shape.batch(), query_heads(row.shape, row.spec),
                                       row.shape.kv_heads, row.shape.capacity, row.spec.head_dim});
  if (found == references_.end()) return std::nullopt;
  return found->second;
}

ordered_json json_of(const BenchRow& row, const BenchMachine& machine,
                     const std::optional<DenseReference>& reference) {
  ordered_json object = device_json(machine);
  object["spec"] = row.spec.text();
  object["tuning"] = row.tuning;
  object["target"] = row.target;
  put_shape(object, row.shape, row.spec);
  put_timing(object, "us", row.sparse);
  put_timing(object, "dense_us", row.dense);
  object["speedup"] = row.dense.median / row.sparse.median;
  object["gbps"] = gbps(row.bytes, row.sparse.median);
  object["roofline"] = gbps(row.bytes, row.sparse.median) / machine.read_gbps;
  object["dense_gbps"] = gbps(row.dense_bytes, row.dense.median);
  object["dense_roofline"] = gbps(row.dense_bytes, row.dense.median) / machine.read_gbps;
  object["dense_ideal_us"] = row.dense_bytes / machine.read_gbps / 1e3;
  object["reference_us"] = nullptr;
  object["reference"] = nullptr;
  object["ratio"] = nullptr;
  if (reference) {
    object["reference_us"] = reference->us;
    object["reference"] = reference->by;
    object["ratio"] = reference->us / row.sparse.median;
  }
  object["sets"] = row.sets;
  object["cold"] = cold_share(row, machine);
  object["steps"] = row.steps;
  object["timed_by"] = machine.graphs ? "graph replay, events" : "passes, host clock";
  if (row.encode) {
    put_timing(object, "encode_us", row.encode->all);
    object["encode_gbps"] = gbps(row.encode->key_bytes, row.encode->all.median);
    object["encode_roofline"] = gbps(row.encode->key_bytes, row.encode->all.median) / machine.read_gbps;
    put_timing(object, "append_us", row.encode->last);
    put_timing(object, "appending_us", row.encode->step);
  }
  if (row.stages) {
    const StageTimes& stages = *row.stages;
    object["threads"] = stages.threads;
    put_timing(object, "scan_us", stages.scan);
    object["scan_ns"] = stages.ns(stages.scan);
    object["scan_warm_ns"] = stages.ns(stages.warm_scan);
    object["scan_gbps"] = stages.gbps(stages.scan);
    object["scan_roofline"] = stages.gbps(stages.scan) / machine.read_gbps;
    object["prepare_us"] = stages.prepare.median;
    object["select_us"] = stages.select.median;
    object["attend_us"] = stages.attend.median;
  }
  if (row.host) {
    object["host_ns"] = row.host->call_ns;
    object["launches"] = row.host->launches;
    object["launch_ns"] = row.host->launch_ns;
    object["host_beyond_ns"] = row.host->beyond_ns();
  }
  return object;
}

ordered_json json_of(const Crossover& crossover, const codegen::Spec& spec, const BenchShape& shape,
                     const BenchMachine& machine) {
  ordered_json object = device_json(machine);
  object["spec"] = spec.text();
  put_shape(object, shape, spec);
  object["dense_below"] = crossover.dense_below;
  object["points"] = ordered_json::array();
  for (const CrossoverPoint& point : crossover.points) {
    ordered_json one{{"tokens", point.tokens}};
    put_timing(one, "us", point.sparse);
    put_timing(one, "dense_us", point.dense);
    object["points"].push_back(one);
  }
  return object;
}

ordered_json json_of(const BenchShape& shape, const codegen::Spec& spec) {
  ordered_json object;
  put_shape(object, shape, spec);
  object["value_dim"] = spec.value_dim;
  object["kv_type"] = codegen::name(spec.kv_type);
  return object;
}

void print_report(const std::vector<ReportRow>& rows, const BenchMachine& machine) {
  const auto any = [&rows](auto has) { return std::any_of(rows.begin(), rows.end(), has); };
  const bool references = any([](const ReportRow& row) { return row.reference.has_value(); });
  const bool encodes = any([](const ReportRow& row) { return row.row.encode.has_value(); });
  std::vector<std::string> headings{"batch",    "K/V heads",  "tokens",        "budget",   "us",
                                    "p10",      "p90",        "GB/s",          "roofline", "dense us",
                                    "speed-up", "dense GB/s", "dense roofline"};
  if (machine.graphs) headings.insert(headings.end(), {"launches", "host us"});
  if (encodes) headings.insert(headings.end(), {"encode GB/s", "share", "append us", "appending us"});
  if (references) headings.insert(headings.end(), {"reference us", "ratio", "reference"});
  Table table(headings);
  for (const auto& [row, reference] : rows) {
    std::vector<std::string> cells{fmt::to_string(row.shape.batch()),
                                   fmt::to_string(row.shape.kv_heads),
                                   row.shape.tokens_text(),
                                   fmt::to_string(row.spec.budget),
                                   microseconds(row.sparse.median),
                                   microseconds(row.sparse.p10),
                                   microseconds(row.sparse.p90),
                                   fmt::format("{:.1f}", gbps(row.bytes, row.sparse.median)),
                                   percent(gbps(row.bytes, row.sparse.median) / machine.read_gbps),
                                   microseconds(row.dense.median),
                                   fmt::format("{:.2f}x", row.dense.median / row.sparse.median),
                                   fmt::format("{:.1f}", gbps(row.dense_bytes, row.dense.median)),
                                   percent(gbps(row.dense_bytes, row.dense.median) / machine.read_gbps)};
    if (machine.graphs) {
      cells.push_back(row.host ? fmt::format("{:.0f}", row.host->launches) : "-");
      cells.push_back(row.host ? fmt::format("{:.2f}", row.host->call_ns / 1e3) : "-");
    }
    if (encodes && row.encode) {
      const double rate = gbps(row.encode->key_bytes, row.encode->all.median);
      cells.push_back(fmt::format("{:.1f}", rate));
      cells.push_back(percent(rate / machine.read_gbps));
      cells.push_back(microseconds(row.encode->last.median));
      cells.push_back(microseconds(row.encode->step.median));
    }
    if (references) {
      cells.push_back(reference ? microseconds(reference->us) : "-");
      cells.push_back(reference ? fmt::format("{:.2f}x", reference->us / row.sparse.median) : "-");
      cells.push_back(reference ? reference->by : "-");
    }
    table.add(cells);
  }
  table.print();
  fmt::print("\nus         one decode step of the whole batch, median (p10, p90), {}\n",
             machine.graphs ? "by events around replays of a CUDA graph of many steps"
                            : "over passes of steps run back to back");
  fmt::print("roofline   time to read the step's bytes at the measured bandwidth, over the time it took\n");
  fmt::print("dense      this library's own dense decode of the same shape, in the same run\n");
  if (machine.graphs) {
    fmt::print(
        "host us    the caller's time in one decode call; one launch of an empty kernel takes {:.2f}\n",
        machine.launch_ns / 1e3);
  }
  if (encodes) {
    fmt::print(
        "encode     the whole cache at once: keys read a second, share of the bandwidth\n"
        "append us  encoding one new token of each sequence, by a call of its own\n"
        "appending  one decode step that makes these codes, too (append_slots)\n");
  }
  if (references) {
    fmt::print("ratio      reference us / us; ideal: all K and V of the lengths at the measured bandwidth\n");
  }
  if (!rows.empty() && rows.front().row.stages) print_stages(rows, machine);
  print_coldness(rows, machine);
}

void print_crossover(const Crossover& crossover, const codegen::Spec& spec, const BenchShape& shape) {
  fmt::print("batch {}, {} K/V heads, up to {} tokens, budget {}\n\n", shape.batch(), shape.kv_heads,
             shape.capacity, spec.budget);
  Table table({"tokens", "us", "p10", "p90", "dense us", "speed-up"});
  for (const CrossoverPoint& point : crossover.points) {
    table.add({fmt::to_string(point.tokens), microseconds(point.sparse.median),
               microseconds(point.sparse.p10), microseconds(point.sparse.p90),
               microseconds(point.dense.median),
               fmt::format("{:.2f}x", point.dense.median / point.sparse.median)});
  }
  table.print();
  fmt::print("\nrecommended: dense_below = {}\n\n", crossover.dense_below);
}

}  // namespace adamas::tools
