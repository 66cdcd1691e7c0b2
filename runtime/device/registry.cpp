// The list of backends, and device names ("auto", "cpu", "cuda:1") to devices.
#include <array>
#include <charconv>
#include <string_view>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/device/device.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;

/// Digits only, at most 9: "0", "12"; -1 for anything else.
int parse_ordinal(std::string_view text) {
  int value = -1;
  if (text.empty() || text.size() > 9 || text.front() == '-') return -1;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  return status == std::errc() && end == text.data() + text.size() ? value : -1;
}

/// The first device that works: one that is missing leads to the next, one that fails otherwise does not.
std::shared_ptr<Device> open_first(int threads, const HostParallelFor& host) {
  std::string reasons;
  for (const Backend* backend : backends()) {
    const std::string missing = backend->unavailable();
    if (!missing.empty())
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", backend->name(), missing);
    for (int ordinal = 0; missing.empty() && ordinal < backend->device_count(); ++ordinal) {
      try {
        return backend->open(ordinal, threads, host);
      } catch (const Error& error) {
        if (error.code() != ADAMAS_UNAVAILABLE) throw;
        reasons += fmt::format("{}{}", reasons.empty() ? "" : "; ", error.what());
      }
    }
  }
  throw Error(ADAMAS_UNAVAILABLE, "device", "auto", "no backend has a device", reasons);
}

}  // namespace

std::span<const Backend* const> backends() {
  static const std::array<const Backend*, 2> all{&cuda_backend(), &cpu_backend()};
  return all;
}

std::shared_ptr<Device> open_device(const std::string& id, int threads, const HostParallelFor& host) {
  if (id == "auto") return open_first(threads, host);
  const std::string_view text = id;
  const std::size_t colon = text.find(':');
  const int ordinal = colon == text.npos ? 0 : parse_ordinal(text.substr(colon + 1));
  for (const Backend* backend : backends()) {
    const bool numbered = colon == text.npos || backend->name() != "cpu";
    if (text.substr(0, colon) != backend->name() || !numbered || ordinal < 0) continue;
    if (const std::string missing = backend->unavailable(); !missing.empty()) {
      throw Error(ADAMAS_UNAVAILABLE, "device", id, missing, "or use the device cpu");
    }
    return backend->open(ordinal, threads, host);
  }
  throw Error(ADAMAS_INVALID_ARGUMENT, "device", id, "must be auto, cpu, cuda or cuda:N",
              "adamas doctor lists what works here");
}

}  // namespace adamas::runtime
