// A refused call as a value, to be compared with what the contract says.
#pragma once

#include <string>

#include <adamas/adamas.hpp>

namespace adamas::tests {

struct Refusal {
  adamas_status status = ADAMAS_OK;
  std::string field = {}, value = {}, rule = {}, hint = {}, message = {};
};

/// What `call` was refused with; status ADAMAS_OK if it was not.
template <class F>
Refusal refusal_of(F&& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.status(), error.field(), error.value(), error.rule(), error.hint(), error.what()};
  }
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

}  // namespace adamas::tests
