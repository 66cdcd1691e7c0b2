// Lists of Specs and Tunings: see spec_list.hpp.
#include "tools/spec_list.hpp"

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <sstream>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/key_values.hpp"
#include "codegen/target.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using codegen::words_of;

constexpr std::size_t kMostSpecs = 100'000;  // beyond, somebody has mistyped a range

/// Calls `visit` with each line that says something, without its remark, and where it stands.
void for_each_line(const std::string& name, std::string_view text,
                   const std::function<void(const std::string& where, std::string_view line)>& visit) {
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    visit(fmt::format("{}:{}", name, number), line);
  }
}

/// The same error with its place in front of the field.
Error at(const std::string& where, const Error& error) {
  return Error(error.code(), where + ": " + error.field(), error.value(), error.rule(), error.hint());
}

/// "64,128" -> {64, 128}; "1..8" -> {1, ..., 8}; anything else is itself.
std::vector<std::string> alternatives(const std::string& where, const std::string& key, const std::string& value) {
  std::vector<std::string> found;
  std::istringstream pieces(value);
  for (std::string piece; std::getline(pieces, piece, ',');) {
    const std::size_t dots = piece.find("..");
    if (dots == piece.npos) {
      found.push_back(piece);
      continue;
    }
    long first = 0, last = 0;
    const auto number = [&](std::size_t begin, std::size_t end, long& result) {
      const char* const from = piece.data() + begin;
      const char* const to = piece.data() + end;
      const auto [rest, error] = std::from_chars(from, to, result);
      return error == std::errc() && rest == to && begin != end;
    };
    if (!number(0, dots, first) || !number(dots + 2, piece.size(), last) || first > last ||
        last - first >= static_cast<long>(kMostSpecs))
      throw Error(ADAMAS_INVALID_SPEC, where + ": " + key, piece, "must be a range such as 1..8");
    for (long n = first; n <= last; ++n)
      found.push_back(fmt::to_string(n));
  }
  if (found.empty()) found.push_back("");
  return found;
}

}  // namespace

std::vector<codegen::Spec> parse_spec_list(const std::string& name, std::string_view text) {
  std::vector<codegen::Spec> specs;
  std::set<std::string> known;
  for_each_line(name, text, [&](const std::string& where, std::string_view line) {
    std::vector<std::string> product{""};
    for (const std::string& word : words_of(line)) {
      const std::size_t equals = word.find('=');
      std::vector<std::string> choices{word};  // a word without '=' is for Spec::parse to refuse
      if (equals != word.npos) {
        choices = alternatives(where, word.substr(0, equals), word.substr(equals + 1));
        for (std::string& choice : choices)
          choice = word.substr(0, equals + 1) + choice;
      }
      if (product.size() * choices.size() > kMostSpecs)
        throw Error(ADAMAS_INVALID_SPEC, where, std::string(line),
                    fmt::format("stands for more than {} Specs", kMostSpecs), "shorten its ranges");
      std::vector<std::string> longer;
      for (const std::string& begun : product) {
        for (const std::string& choice : choices)
          longer.push_back(begun.empty() ? choice : begun + " " + choice);
      }
      product = std::move(longer);
    }
    for (const std::string& spec_text : product) {
      try {
        codegen::Spec spec = codegen::Spec::parse(spec_text);
        if (known.insert(spec.text()).second) specs.push_back(std::move(spec));
      } catch (const Error& error) {
        throw at(where, error);
      }
    }
  });
  return specs;
}

TuningTable::TuningTable(const std::string& name, std::string_view text) {
  for_each_line(name, text, [&](const std::string& where, std::string_view line) {
    const std::size_t arrow = line.find("->");
    std::vector<std::string> words = words_of(line.substr(0, arrow));
    if (arrow == line.npos || words.empty() || words.front().find('=') != std::string::npos)
      throw Error(ADAMAS_INVALID_SPEC, where, std::string(line),
                  "must be: target [key=value of the Spec ...] -> key=value of the Tuning ...",
                  "for example: sm_90a head_dim=128 -> chunk=64");
    const std::string target = words.front();
    if (target != "*" && target != "host") {
      try {
        codegen::check_target(target);
      } catch (const Error& error) {
        throw at(where, error);
      }
    }
    words.erase(words.begin());
    rules_.push_back({where, target, words, std::string(line.substr(arrow + 2))});
  });
}

TuningTable TuningTable::of(const std::string& tuning) {
  TuningTable table;
  table.rules_.push_back({"--tuning", "*", {}, tuning});
  return table;
}

codegen::Tuning TuningTable::tuning(const codegen::Spec& spec, const std::string& target,
                                    const std::string& typed) const {
  const std::vector<std::string> has = words_of(spec.text());
  for (const Rule& rule : rules_) {
    if (rule.target != "*" && rule.target != target && rule.target != typed) continue;
    const bool fits = std::ranges::all_of(
        rule.words, [&](const std::string& word) { return std::ranges::find(has, word) != has.end(); });
    if (!fits) continue;
    try {
      return codegen::Tuning::parse(rule.tuning, spec, target);
    } catch (const Error& error) {
      throw at(rule.where, error);
    }
  }
  return codegen::Tuning::parse("", spec, target);
}

}  // namespace adamas::tools
