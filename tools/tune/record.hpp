// What a run of `adamas tune` found out about one shape: for its report, and for the journal that an
// interrupted run goes on from.
#pragma once

#include <cstddef>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "codegen/tuning_space.hpp"
#include "runtime/dispatch/tuning_file.hpp"
#include "tools/tune/search.hpp"

namespace adamas::tools {

/// What was tuned, and where.
struct TuneSubject {
  std::string spec, target, device, device_name, driver, library;
  double read_gbps = 0;
  bool operator==(const TuneSubject&) const = default;
};

struct ShapeRecord {
  runtime::TunedShape shape;
  double bytes = 0;                  ///< that a step must read
  std::vector<std::string> tunings;  ///< canonical; the default first
  std::vector<Trial> trials;         ///< of each
  std::size_t best = 0;
  bool complete = false;
  int passes = 0;
  double seconds = 0;
  std::string chosen;  ///< the best of `tunings`, with the dense_chunk that is best for attending to all
  double dense_us = 0, dense_default_us = 0;
  std::vector<codegen::ExcludedTuning> excluded;

  const Trial& best_trial() const { return trials[best]; }
};

nlohmann::ordered_json json_of(const Trial& trial);
Trial trial_of(const nlohmann::json& object);
nlohmann::ordered_json json_of(const ShapeRecord& record);
ShapeRecord record_of(const nlohmann::json& object);

runtime::TunedEntry entry_of(const TuneSubject& subject, const ShapeRecord& record);

/// Lines of JSON beside the result, written as things happen. What belongs to another subject is passed over,
/// and so is a line that was cut off.
class Journal {
 public:
  /// Reads what is there and goes on behind it. @param path  "": keep none
  Journal(const std::string& path, const TuneSubject& subject);

  /// Of a shape that an earlier run finished.
  const ShapeRecord* finished(const runtime::TunedShape& shape) const;
  /// First results of a shape that it did not finish; by canonical Tuning.
  std::map<std::string, Trial> known(const runtime::TunedShape& shape) const;

  void add(const runtime::TunedShape& shape, const std::string& tuning, const Trial& trial);
  void add(const ShapeRecord& record);
  /// All is done: there is nothing to go on with.
  void remove();

 private:
  void write(nlohmann::ordered_json object);

  std::string path_;
  nlohmann::ordered_json subject_;
  std::map<runtime::TunedShape, ShapeRecord> finished_;
  std::map<runtime::TunedShape, std::map<std::string, Trial>> known_;
  std::ofstream file_;
};

}  // namespace adamas::tools
