// Tuning files: see tuning_file.hpp.
#include "runtime/dispatch/tuning_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <tuple>

#include <nlohmann/json.hpp>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;
using nlohmann::ordered_json;

constexpr int kVersion = 1;

auto key_of(const TunedEntry& entry) {
  return std::tie(entry.spec, entry.target, entry.device_name, entry.shape);
}

TunedEntry entry_of(const ordered_json& object) {
  TunedEntry entry;
  entry.spec = codegen::Spec::parse(object.at("spec").get<std::string>()).text();
  entry.target = object.at("target");
  entry.shape = {
      .batch = object.at("batch"), .kv_heads = object.at("kv_heads"), .tokens = object.at("tokens")};
  const auto spec = codegen::Spec::parse(entry.spec);
  entry.tuning = codegen::Tuning::parse(object.at("tuning").get<std::string>(), spec, entry.target).text();
  entry.device_name = object.value("device_name", "");
  entry.driver = object.value("driver", "");
  entry.library = object.value("library", "");
  entry.us = object.value("us", 0.0);
  entry.default_us = object.value("default_us", 0.0);
  entry.dense_us = object.value("dense_us", 0.0);
  if (entry.shape.batch < 1 || entry.shape.kv_heads < 1 || entry.shape.tokens < 1)
    throw Error(ADAMAS_IO_ERROR, "shape", "", "batch, kv_heads and tokens must be positive");
  return entry;
}

}  // namespace

double TunedShape::Position::distance(const Position& other) const {
  return std::abs(batch - other.batch) + std::abs(kv_heads - other.kv_heads) +
         std::abs(tokens - other.tokens);
}

TunedShape::Position TunedShape::position() const {
  return {std::log2(batch), std::log2(kv_heads), std::log2(static_cast<double>(tokens))};
}

TuningFile TuningFile::parse(const std::string& where, std::string_view text) {
  const auto fail = [&](const std::string& why, const std::string& hint) {
    throw Error(ADAMAS_IO_ERROR, "tuning file", where, why, hint);
  };
  const ordered_json document = ordered_json::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("adamas_tuning"))
    fail("is no tuning file", "`adamas tune --out FILE` writes one");
  const ordered_json& version = document.at("adamas_tuning");
  if (!version.is_number_integer() || version.get<std::int64_t>() != kVersion)
    fail(fmt::format("has version {}; this library reads version {}", version.dump(), kVersion),
         "tune again with this library");
  if (!document.contains("entries") || !document.at("entries").is_array()) fail("has no list of entries", "");
  TuningFile file;
  std::size_t number = 0;
  for (const ordered_json& object : document.at("entries")) {
    ++number;
    try {
      file.put(entry_of(object));
    } catch (const nlohmann::json::exception& error) {
      fail(fmt::format("entry {}: {}", number, error.what()), "remove it, or tune again");
    } catch (const Error& error) {
      fail(fmt::format("entry {}: {} {}: {}", number, error.field(), error.value(), error.rule()),
           "remove it, or tune again with this library");
    }
  }
  return file;
}

TuningFile TuningFile::read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf()))
    throw Error(ADAMAS_IO_ERROR, "tuning file", path,
                std::string("cannot be read: ") + (errno != 0 ? std::strerror(errno) : "it is empty"));
  return parse(path, text.str());
}

void TuningFile::put(TunedEntry entry) {
  const auto at = std::ranges::lower_bound(entries_, key_of(entry), {}, key_of);
  if (at != entries_.end() && key_of(*at) == key_of(entry)) {
    *at = std::move(entry);
  } else {
    entries_.insert(at, std::move(entry));
  }
}

void TuningFile::merge(const TuningFile& other) {
  for (const TunedEntry& entry : other.entries_)
    put(entry);
}

ordered_json json_of(const TunedEntry& entry) {
  return {{"spec", entry.spec},
          {"target", entry.target},
          {"batch", entry.shape.batch},
          {"kv_heads", entry.shape.kv_heads},
          {"tokens", entry.shape.tokens},
          {"tuning", entry.tuning},
          {"device_name", entry.device_name},
          {"driver", entry.driver},
          {"library", entry.library},
          {"us", entry.us},
          {"default_us", entry.default_us},
          {"dense_us", entry.dense_us}};
}

std::string TuningFile::text() const {
  ordered_json entries = ordered_json::array();
  for (const TunedEntry& entry : entries_)
    entries.push_back(json_of(entry));
  return ordered_json{{"adamas_tuning", kVersion}, {"entries", entries}}.dump(1) + "\n";
}

void TuningFile::write(const std::string& path) const {
  const std::string temporary = fmt::format("{}.{}", path, getpid());
  std::ofstream stream(temporary, std::ios::binary);
  stream << text();
  stream.close();
  if (!stream || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary.c_str());
    throw Error(ADAMAS_IO_ERROR, "tuning file", path,
                std::string("cannot be written: ") + std::strerror(error));
  }
}

std::vector<const TunedEntry*> entries_for(const TuningFile& file, std::string_view spec,
                                           std::string_view target, std::string_view device_name) {
  std::vector<const TunedEntry*> all, own;
  for (const TunedEntry& entry : file.entries()) {
    if (entry.spec != spec || entry.target != target) continue;
    all.push_back(&entry);
    if (entry.device_name == device_name) own.push_back(&entry);
  }
  return own.empty() ? all : own;
}

const TunedEntry* nearest_entry(const std::vector<const TunedEntry*>& entries, const TunedShape& shape) {
  const TunedEntry* nearest = nullptr;
  double least = 0;
  const TunedShape::Position place = shape.position();
  for (const TunedEntry* entry : entries) {
    const double distance = entry->shape.position().distance(place);
    if (nearest == nullptr || distance < least) nearest = entry, least = distance;
  }
  return nearest;
}

}  // namespace adamas::runtime
