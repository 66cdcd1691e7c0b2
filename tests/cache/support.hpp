// What the cache tests share: a folder that goes away, a log that is kept, keys, and a compiler that counts.
#pragma once

#include <stdlib.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/cache/cache.hpp"
#include "runtime/cache/pack.hpp"

namespace adamas::tests {

namespace fs = std::filesystem;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (fs::temp_directory_path() / "adamas-cache-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp " + pattern);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const fs::path& path() const { return path_; }
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

/// Keeps what a Cache logs.
class Log {
 public:
  runtime::LogFn sink() {
    return [this](runtime::LogLevel level, const std::string& message) {
      const std::lock_guard lock(mutex_);
      if (level == runtime::LogLevel::warning) warnings_.push_back(message);
    };
  }
  std::vector<std::string> warnings() const {
    const std::lock_guard lock(mutex_);
    return warnings_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> warnings_;
};

inline runtime::CacheKey key_for(const std::string& target, const std::string& source = "int kernel;") {
  return {"select", "head_dim=128", "chunk=64", source, target, {"-O2"}};
}

inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

/// A compiler whose binary names the target it was asked for, and that counts.
struct CountingCompiler {
  std::string identity = "test-cc 1.0 0123456789abcdef";
  std::atomic<int> compiles{0};

  static std::vector<std::byte> binary_for(const runtime::CacheKey& key) {
    std::string text = "binary of " + key.unit + " for " + key.target + ": ";
    while (text.size() < 500)
      text += "0123456789";
    return bytes_of(text);
  }

  runtime::CompileResult operator()(const runtime::CacheKey& key) {
    ++compiles;
    runtime::CompileResult result;
    result.binary = binary_for(key);
    result.compiler = identity;
    result.milliseconds = 12.5;
    return result;
  }
};

/// A pack of what a CountingCompiler makes of the keys. @return its bytes
inline std::uint64_t write_pack(const std::string& path, const std::vector<runtime::CacheKey>& keys,
                                const std::vector<runtime::PackedSet>& sets = {}) {
  runtime::PackWriter writer;
  for (const runtime::CacheKey& key : keys) {
    const runtime::EntryInfo info{.digest = key.digest(), .unit = key.unit, .spec = key.spec, .tuning = key.tuning,
                                  .target = key.target, .options = key.options, .compiler = "test-cc 1.0"};
    writer.add(info, key.text(), CountingCompiler::binary_for(key));
  }
  for (const runtime::PackedSet& set : sets)
    writer.add_set(set);
  return writer.write(path);
}

/// Without the folder's own state file.
inline std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& item : fs::recursive_directory_iterator(folder))
    if (item.is_regular_file() && item.path().filename() != ".adamas-state") files.push_back(item.path());
  return files;
}

inline std::vector<std::byte> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return bytes_of(text);
}

inline void write_file(const fs::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace adamas::tests
