// The subcommands of `adamas`, one file each, and what they share: output for people (tables) or machines
// (--json), progress on stderr, exit codes 0 (done), 1 (failed), 2 (usage).
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

namespace adamas::tools {

/// What a parsed subcommand does; returns the exit code. Errors are thrown and become exit code 1.
using Action = std::function<int()>;

void add_demo(CLI::App& app, Action& chosen);
void add_eval(CLI::App& app, Action& chosen);
void add_calibrate(CLI::App& app, Action& chosen);
void add_doctor(CLI::App& app, Action& chosen);
void add_emit(CLI::App& app, Action& chosen);
void add_compile(CLI::App& app, Action& chosen);
void add_bench(CLI::App& app, Action& chosen);
void add_precompile(CLI::App& app, Action& chosen);
void add_specs(CLI::App& app, Action& chosen);
void add_cache(CLI::App& app, Action& chosen);
void add_tune(CLI::App& app, Action& chosen);
void add_tune_worker(CLI::App& app, Action& chosen);

/// The whole command line. Arguments as main() gets them.
int run_cli(int argc, const char* const* argv);

/// One JSON object a line on stdout.
void print_json(const nlohmann::ordered_json& object);

/// Columns aligned by content, numbers to the right; printed on stdout.
class Table {
 public:
  explicit Table(std::vector<std::string> headings);
  void add(std::vector<std::string> row);
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the first holds the headings
};

/// A line on stderr that says what is going on: replaced in place on a terminal, plain lines elsewhere.
class Progress {
 public:
  explicit Progress(bool quiet);
  ~Progress();
  /// "" takes the line away.
  void say(const std::string& text);

 private:
  bool quiet_, terminal_, open_ = false;
};

}  // namespace adamas::tools
