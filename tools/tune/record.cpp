// Records and the journal: see record.hpp.
#include "tools/tune/record.hpp"

#include <array>
#include <cstdio>
#include <string_view>
#include <utility>

namespace adamas::tools {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using runtime::TunedShape;

constexpr std::array<std::string_view, 4> kStates{"waiting", "running", "dropped", "failed"};

ordered_json subject_json(const TuneSubject& subject) {
  // Not the bandwidth: it is measured anew each time.
  return {{"spec", subject.spec},
          {"target", subject.target},
          {"device_name", subject.device_name},
          {"driver", subject.driver},
          {"library", subject.library}};
}

ordered_json shape_json(const TunedShape& shape) {
  return {{"batch", shape.batch}, {"kv_heads", shape.kv_heads}, {"tokens", shape.tokens}};
}

TunedShape shape_of(const json& object) {
  return {.batch = object.at("batch"), .kv_heads = object.at("kv_heads"), .tokens = object.at("tokens")};
}

}  // namespace

ordered_json json_of(const Trial& trial) {
  ordered_json object{{"state", kStates[static_cast<std::size_t>(trial.state)]}};
  if (trial.passes > 0) {
    object["us"] = trial.us, object["ratio"] = trial.ratio, object["spread"] = trial.spread;
    object["passes"] = trial.passes;
  }
  if (!trial.why.empty()) object["why"] = trial.why;
  return object;
}

Trial trial_of(const json& object) {
  Trial trial;
  const std::string state = object.at("state");
  for (std::size_t i = 0; i < kStates.size(); ++i) {
    if (kStates[i] == state) trial.state = static_cast<Trial::State>(i);
  }
  trial.us = object.value("us", 0.0);
  trial.ratio = object.value("ratio", 0.0);
  trial.spread = object.value("spread", 0.0);
  trial.passes = object.value("passes", 0);
  trial.why = object.value("why", "");
  return trial;
}

ordered_json json_of(const ShapeRecord& record) {
  ordered_json object = shape_json(record.shape);
  object["bytes"] = record.bytes;
  object["best"] = record.best;
  object["complete"] = record.complete;
  object["passes"] = record.passes;
  object["seconds"] = record.seconds;
  object["chosen"] = record.chosen;
  object["dense_us"] = record.dense_us;
  object["dense_default_us"] = record.dense_default_us;
  object["trials"] = ordered_json::array();
  for (std::size_t i = 0; i < record.trials.size(); ++i) {
    ordered_json trial = json_of(record.trials[i]);
    trial["tuning"] = record.tunings[i];
    object["trials"].push_back(std::move(trial));
  }
  object["excluded"] = ordered_json::array();
  for (const codegen::ExcludedTuning& excluded : record.excluded)
    object["excluded"].push_back({{"tuning", excluded.tuning}, {"why", excluded.why}});
  return object;
}

ShapeRecord record_of(const json& object) {
  ShapeRecord record;
  record.shape = shape_of(object);
  record.bytes = object.at("bytes");
  record.best = object.at("best");
  record.complete = object.at("complete");
  record.passes = object.at("passes");
  record.seconds = object.at("seconds");
  record.chosen = object.at("chosen");
  record.dense_us = object.at("dense_us");
  record.dense_default_us = object.at("dense_default_us");
  for (const json& trial : object.at("trials")) {
    record.tunings.push_back(trial.at("tuning"));
    record.trials.push_back(trial_of(trial));
  }
  for (const json& excluded : object.at("excluded"))
    record.excluded.push_back({excluded.at("tuning"), excluded.at("why")});
  if (record.best >= record.trials.size()) throw json::other_error::create(501, "best is no trial", &object);
  return record;
}

runtime::TunedEntry entry_of(const TuneSubject& subject, const ShapeRecord& record) {
  runtime::TunedEntry entry;
  entry.spec = subject.spec;
  entry.target = subject.target;
  entry.shape = record.shape;
  entry.tuning = record.chosen;
  entry.device_name = subject.device_name;
  entry.driver = subject.driver;
  entry.library = subject.library;
  entry.us = record.best_trial().us;
  entry.default_us = record.best_trial().default_us();
  entry.dense_us = record.dense_us;
  return entry;
}

Journal::Journal(const std::string& path, const TuneSubject& subject)
    : path_(path), subject_(subject_json(subject)) {
  if (path_.empty()) return;
  std::ifstream before(path_);
  for (std::string line; std::getline(before, line);) {
    const json object = json::parse(line, nullptr, false);
    try {
      if (json(object.at("subject")) != json(subject_)) continue;
      if (object.contains("record")) {
        ShapeRecord record = record_of(object.at("record"));
        finished_[record.shape] = std::move(record);
      } else {
        known_[shape_of(object.at("shape"))][object.at("tuning")] = trial_of(object.at("trial"));
      }
    } catch (const json::exception&) {
      // Cut off, or of another version: it is found out again.
    }
  }
  file_.open(path_, std::ios::app);
}

const ShapeRecord* Journal::finished(const TunedShape& shape) const {
  const auto found = finished_.find(shape);
  return found == finished_.end() ? nullptr : &found->second;
}

std::map<std::string, Trial> Journal::known(const TunedShape& shape) const {
  const auto found = known_.find(shape);
  return found == known_.end() ? std::map<std::string, Trial>() : found->second;
}

void Journal::add(const TunedShape& shape, const std::string& tuning, const Trial& trial) {
  write({{"shape", shape_json(shape)}, {"tuning", tuning}, {"trial", json_of(trial)}});
}

void Journal::add(const ShapeRecord& record) { write({{"record", json_of(record)}}); }

void Journal::write(ordered_json object) {
  if (!file_.is_open()) return;
  object["subject"] = subject_;
  file_ << object.dump() << std::endl;  // at once: the next moment may be the last
}

void Journal::remove() {
  if (path_.empty()) return;
  file_.close();
  std::remove(path_.c_str());
}

}  // namespace adamas::tools
