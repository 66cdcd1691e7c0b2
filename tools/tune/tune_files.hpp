// `adamas tune show`, `merge`, `verify` and `export`: what is done with tuning files once they are there.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "runtime/device/device.hpp"
#include "tools/cli.hpp"
#include "tools/tune/shape_tuner.hpp"

namespace adamas::tools {

/// Adds the four to `tune`.
void add_tune_files(CLI::App& tune, Action& chosen);

/// Where contexts look for a tuning file. @throws codegen::Error when there is no cache folder
std::string tuning_file_path();

/// --memory of the commands that time, and the bytes of caches that it allows.
void add_memory_option(CLI::App& command, std::optional<double>& gb);
double cache_memory(std::optional<double> gb, std::string_view target);

/// What is tuned on a device, which it measures the bandwidth of.
TuneSubject subject_of(const TuneTask& task, const runtime::Device& device);

}  // namespace adamas::tools
