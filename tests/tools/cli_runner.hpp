// The command line in process: arguments in, exit code and output back.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/cli.hpp"

namespace adamas::tests {

/// A stream of this process redirected into a file while it lives.
class Captured {
 public:
  explicit Captured(FILE* stream) : stream_(stream), file_(std::tmpfile()), saved_(dup(fileno(stream))) {
    REQUIRE(file_ != nullptr);
    std::fflush(stream_);
    dup2(fileno(file_), fileno(stream_));
  }
  ~Captured() {
    if (saved_ >= 0) restore();
    std::fclose(file_);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;

  std::string text() {
    restore();
    std::rewind(file_);
    std::string text;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_))
      text += static_cast<char>(c);
    return text;
  }

 private:
  void restore() {
    std::fflush(stream_);
    dup2(saved_, fileno(stream_));
    close(saved_);
    saved_ = -1;
  }

  FILE* stream_;
  FILE* file_;
  int saved_;
};

struct Outcome {
  int exit_code;
  std::string out, err;

  nlohmann::json object() const { return nlohmann::json::parse(out); }
  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> objects;
    std::istringstream stream(out);
    for (std::string line; std::getline(stream, line);)
      objects.push_back(nlohmann::json::parse(line));
    return objects;
  }
};

inline Outcome adamas_cli(std::vector<std::string> words) {
  words.insert(words.begin(), "adamas");
  std::vector<const char*> argv;
  for (const std::string& word : words)
    argv.push_back(word.c_str());
  Captured out(stdout), err(stderr);
  const int exit_code = adamas::tools::run_cli(static_cast<int>(argv.size()), argv.data());
  return {exit_code, out.text(), err.text()};
}

}  // namespace adamas::tests
