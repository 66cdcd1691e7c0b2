// The one error type of the project: what was wrong (field, value), which rule it broke, and the way out.
// At the C boundary it becomes a status code and a per-context message.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <adamas/adamas.h>

namespace adamas::codegen {

class Error : public std::runtime_error {
 public:
  /// @param code   what kind of failure this is, as the C interface reports it
  /// @param field  the input at fault: a Spec key, an argument, a file
  /// @param value  what it was
  /// @param rule   the rule it broke, as a full clause ("must divide head_dim 128")
  /// @param hint   the way out, possibly empty ("nearest valid value: 64")
  Error(adamas_status code, std::string field, std::string value, std::string rule, std::string hint = {})
      : std::runtime_error(message(field, value, rule, hint)),
        code_(code),
        field_(std::move(field)),
        value_(std::move(value)),
        rule_(std::move(rule)),
        hint_(std::move(hint)) {}

  adamas_status code() const noexcept { return code_; }
  const std::string& field() const noexcept { return field_; }
  const std::string& value() const noexcept { return value_; }
  const std::string& rule() const noexcept { return rule_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  static std::string message(const std::string& field, const std::string& value, const std::string& rule,
                             const std::string& hint) {
    std::string text = field;
    if (!value.empty()) text += "=" + value;
    text += ": " + rule;
    if (!hint.empty()) text += "; " + hint;
    return text;
  }

  adamas_status code_;
  std::string field_, value_, rule_, hint_;
};

}  // namespace adamas::codegen
