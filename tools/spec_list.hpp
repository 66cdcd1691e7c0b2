// Lists of Specs and of Tunings, as files and options of `precompile` have them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"

namespace adamas::tools {

/// A line is a Spec; "key=a,b,c" and "key=1..8" stand for several, and a line for the product of them all. What
/// follows a '#' is a remark. Each Spec once, in the order of the text.
/// @param name  of the file or option, for errors
/// @throws codegen::Error naming line, key and rule
std::vector<codegen::Spec> parse_spec_list(const std::string& name, std::string_view text);

/// Which Tuning a Spec gets on a target.
///
///   # target   keys of the Spec           Tuning
///   sm_90a     head_dim=128 group=4    -> chunk=64 decode_threads=256
///   *          budget=1024             -> dense_chunk=256
///
/// The first line whose target ("*": any) and keys all fit is taken; without one it is the target's default.
class TuningTable {
 public:
  TuningTable() = default;
  /// @throws codegen::Error naming line and rule
  TuningTable(const std::string& name, std::string_view text);
  /// One Tuning for all.
  static TuningTable of(const std::string& tuning);

  /// @param typed  the target as the user named it ("host"), which a line may do as well
  /// @throws codegen::Error naming line, key and rule
  codegen::Tuning tuning(const codegen::Spec& spec, const std::string& target, const std::string& typed) const;

 private:
  struct Rule {
    std::string where;  ///< "table.txt:3", for errors
    std::string target;
    std::vector<std::string> words;  ///< of the Spec
    std::string tuning;
  };
  std::vector<Rule> rules_;
};

}  // namespace adamas::tools
