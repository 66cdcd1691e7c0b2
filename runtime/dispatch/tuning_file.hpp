// Tuning files: which Tuning was found to be the fastest for a Spec, target and shape, and on what. Written
// by `adamas tune`, read by contexts; JSON, with a version.
//
//   {"adamas_tuning": 1, "entries": [{"spec": ..., "target": "sm_90a", "batch": 1, "kv_heads": 8, "tokens":
//   32768,
//     "tuning": "chunk=64 ...", "device_name": ..., "driver": ..., "library": ..., "us": ..., "default_us":
//     ..., "dense_us": ...}]}
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace adamas::runtime {

/// The shape of a call: what a Tuning is chosen by.
struct TunedShape {
  int batch = 1;
  int kv_heads = 1;
  std::int64_t tokens = 1;
  auto operator<=>(const TunedShape&) const = default;

  /// Logarithms to base 2 of the sizes.
  struct Position {
    double batch = 0, kv_heads = 0, tokens = 0;

    /// Doublings between two shapes, each size counted for itself.
    double distance(const Position& other) const;
  };
  Position position() const;
};

struct TunedEntry {
  std::string spec, target;  ///< canonical
  TunedShape shape;
  std::string tuning;  ///< canonical
  // On what it was found, and what it took there, in microseconds a step; 0 = not measured.
  std::string device_name = {}, driver = {}, library = {};
  double us = 0, default_us = 0, dense_us = 0;
};

/// As the file has it.
nlohmann::ordered_json json_of(const TunedEntry& entry);

class TuningFile {
 public:
  TuningFile() = default;

  /// @param where  names the text in errors
  /// @throws codegen::Error(ADAMAS_IO_ERROR) naming what is wrong, and the version if it is another
  static TuningFile parse(const std::string& where, std::string_view text);
  /// @throws codegen::Error(ADAMAS_IO_ERROR) also if it cannot be read
  static TuningFile read(const std::string& path);

  const std::vector<TunedEntry>& entries() const { return entries_; }

  /// In place of an entry of the same Spec, target, device and shape.
  void put(TunedEntry entry);
  void merge(const TuningFile& other);

  std::string text() const;
  /// At once for every reader. @throws codegen::Error(ADAMAS_IO_ERROR) naming the path
  void write(const std::string& path) const;

 private:
  std::vector<TunedEntry> entries_;  // sorted by Spec, target, device, shape
};

/// The entries that decide for a Spec and target: of this device by name if it has any, else of all.
std::vector<const TunedEntry*> entries_for(const TuningFile&, std::string_view spec, std::string_view target,
                                           std::string_view device_name);

/// The nearest of them to a shape, the first of equally near ones; null without any.
const TunedEntry* nearest_entry(const std::vector<const TunedEntry*>& entries, const TunedShape& shape);

}  // namespace adamas::runtime
