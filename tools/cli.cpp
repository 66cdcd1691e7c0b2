// The command line's frame: subcommands, errors and exit codes, tables, progress.
#include "tools/cli.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <utility>

#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::tools {
namespace {

constexpr int kDone = 0, kFailed = 1, kUsage = 2;

/// An error as machines read it. status is a name of adamas_status_name(), or "usage".
struct Failure {
  std::string status, field, value, rule, hint;
};

int fail(const Failure& failure, const std::string& message, bool json, int exit_code) {
  std::fflush(stdout);  // what was said before the failure comes before it
  std::fprintf(stderr, "adamas: %s\n", message.c_str());
  if (json) {
    print_json({{"error",
                 {{"status", failure.status},
                  {"field", failure.field},
                  {"value", failure.value},
                  {"rule", failure.rule},
                  {"hint", failure.hint}}}});
  }
  return exit_code;
}

/// The innermost subcommand that was reached.
const CLI::App& reached(const CLI::App& app) {
  const auto inner = app.get_subcommands();
  return inner.empty() ? app : reached(*inner.back());
}

std::string full_name(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : full_name(*app.get_parent()) + " " + app.get_name();
}

int usage_error(const CLI::App& app, const CLI::ParseError& error, bool json) {
  const std::string hint = fmt::format("see {} --help", full_name(reached(app)));
  return fail({.status = "usage", .field = "", .value = "", .rule = error.what(), .hint = hint},
              fmt::format("{}; {}", error.what(), hint), json, kUsage);
}

/// Runs the action; its exceptions become messages.
int run(const Action& action, bool json) {
  const auto failed = [json](const auto& error, adamas_status status) {
    return fail({adamas_status_name(status), error.field(), error.value(), error.rule(), error.hint()},
                error.what(), json, kFailed);
  };
  const auto failed_inside = [json](const std::string& what) {
    return fail({adamas_status_name(ADAMAS_INTERNAL), "", "", what, ""}, what, json, kFailed);
  };
  try {
    return action();
  } catch (const codegen::Error& error) {
    return failed(error, error.code());
  } catch (const Error& error) {
    return failed(error, error.status());
  } catch (const std::bad_alloc&) {
    return fail({adamas_status_name(ADAMAS_OUT_OF_MEMORY), "memory", "", "is exhausted", ""},
                "memory is exhausted", json, kFailed);
  } catch (const std::exception& error) {
    return failed_inside(fmt::format("unexpected: {}", error.what()));
  }
}

/// Columns that a terminal needs for UTF-8 text: bytes less continuation bytes. Enough for what is printed
/// here.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// "12", "-0.5", "3.1x", "41.5 KiB", "97 %": a number, perhaps with a unit.
bool is_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of("+-"), text.size()));
  const std::size_t digits = std::min(text.find_first_not_of("0123456789.,"), text.size());
  if (digits == 0) return false;
  const std::string_view unit = text.substr(digits);
  return unit.empty() || unit == "x" || unit == "%" ||
         (unit.front() == ' ' && unit.find(' ', 1) == unit.npos &&
          unit.find_first_of("0123456789") == unit.npos);
}

bool is_blank(const std::string& cell) { return cell.empty() || cell == "-" || cell == "—"; }

}  // namespace

int run_cli(int argc, const char* const* argv) {
  CLI::App app{
      "Sparse-attention decode kernels: generated for one shape, compiled and cached when first asked for.",
      "adamas"};
  app.set_version_flag("--version", fmt::format("adamas {}.{}.{}", ADAMAS_VERSION_MAJOR, ADAMAS_VERSION_MINOR,
                                                ADAMAS_VERSION_PATCH));
  app.require_subcommand(1);
  app.footer("Exit code: 0 done, 1 failed, 2 wrong usage.\n\nExample:\n  adamas doctor");
  Action action;
  for (const auto add :
       {add_demo, add_eval, add_calibrate, add_doctor, add_emit, add_compile, add_bench, add_precompile, add_specs, add_cache, add_tune, add_tune_worker}) {
    add(app, action);
  }
  // Not an option of the frame's own: errors in the arguments themselves need to know it, too.
  const bool json =
      std::any_of(argv, argv + argc, [](const char* word) { return std::strcmp(word, "--json") == 0; });

  int exit_code = kDone;
  try {
    app.parse(argc, argv);
    exit_code = run(action, json);
  } catch (const CLI::ParseError& error) {
    // --help and --version end parsing as well; CLI11 prints those.
    exit_code = error.get_exit_code() == kDone ? app.exit(error) : usage_error(app, error, json);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fprintf(stderr, "adamas: the output could not be written: %s\n", std::strerror(errno));
    return exit_code == kDone ? kFailed : exit_code;
  }
  return exit_code;
}

void print_json(const nlohmann::ordered_json& object) {
  // Paths and logs may hold bytes that are no UTF-8: replaced, since a machine reads this.
  const std::string line = object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

Table::Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }

void Table::add(std::vector<std::string> row) {
  row.resize(rows_.front().size());
  rows_.push_back(std::move(row));
}

void Table::print() const {
  const std::size_t columns = rows_.front().size();
  std::vector<std::size_t> widths(columns);
  std::vector<bool> numeric(columns);
  for (std::size_t c = 0; c < columns; ++c) {
    bool any = false, all = true;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      const std::string& cell = rows_[r][c];
      widths[c] = std::max(widths[c], width(cell));
      if (r == 0 || is_blank(cell)) continue;
      if (is_number(cell)) {
        any = true;
      } else {
        all = false;
      }
    }
    numeric[c] = any && all;
  }
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::string padding(widths[c] - width(row[c]), ' ');
      line += (c == 0 ? "" : "  ") + (numeric[c] ? padding + row[c] : row[c] + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    std::printf("%s\n", line.c_str());
  }
}

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (open_) std::fputs("\r\x1b[K", stderr);
}

void Progress::say(const std::string& text) {
  if (quiet_) return;
  if (terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s", text.c_str());
    open_ = !text.empty();
  } else if (!text.empty()) {
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  std::fflush(stderr);
}

}  // namespace adamas::tools
