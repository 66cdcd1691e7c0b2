// A host's callbacks: its allocator of device memory, one that fails in every way included, and its logger.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "tests/dispatch/refusal.hpp"

namespace adamas::tests {
namespace {

/// An allocator that keeps books, and can be told to misbehave.
struct Books {
  enum class Behaviour { well, null, misaligned, throws, throws_anything } behaviour = Behaviour::well;
  std::map<void*, std::uint64_t> live = {};
  std::uint64_t asked_alignment = 0;
  int releases_of_others = 0;

  static void* allocate(void* user, std::uint64_t bytes, std::uint64_t alignment) {
    auto& books = *static_cast<Books*>(user);
    books.asked_alignment = alignment;
    switch (books.behaviour) {
      case Behaviour::null:
        return nullptr;
      case Behaviour::throws:
        throw std::runtime_error("no memory today");
      case Behaviour::throws_anything:
        throw 7;
      case Behaviour::well:
      case Behaviour::misaligned:
        break;
    }
    auto* memory = static_cast<char*>(std::aligned_alloc(alignment, (bytes / alignment + 2) * alignment));
    if (books.behaviour == Behaviour::misaligned) memory += 8;
    books.live[memory] = bytes;
    return memory;
  }
  static void release(void* user, void* pointer) {
    auto& books = *static_cast<Books*>(user);
    if (books.live.erase(pointer) == 0) {
      ++books.releases_of_others;
      return;
    }
    std::free(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(pointer) / 64 * 64));
  }
  ContextOptions options() {
    return {.device = "cpu", .allocate = allocate, .release = release, .allocator_user = this};
  }
};

}  // namespace

TEST_CASE("cpu: memory comes from the host's allocator and goes back to it") {
  Books books;
  const Context context(books.options());
  {
    const auto buffer = context.allocate<float>(1000);
    CHECK(books.live.size() == 1);
    CHECK(books.live.at(buffer.data()) == 4000);
    CHECK(books.asked_alignment == 64);
    buffer.upload(std::vector<float>(1000, 2.5F));
    CHECK(buffer.download() == std::vector<float>(1000, 2.5F));
  }
  CHECK(books.live.empty());
  // Nothing else allocates: a kernel is prepared and planned without a word to the allocator.
  const Kernel kernel = context.prepare("", {.max_batch = 1, .kv_heads = 1, .max_tokens = 64});
  kernel.plan({.batch = 1});
  CHECK(books.live.empty());
  CHECK(adamas_free(context.get(), nullptr) == ADAMAS_OK);
  CHECK(books.releases_of_others == 0);
}

TEST_CASE("cpu: an allocator that fails becomes a status, whatever it does") {
  using Behaviour = Books::Behaviour;
  const struct {
    Behaviour behaviour;
    adamas_status status;
    std::string rule;
  } cases[] = {{Behaviour::null, ADAMAS_OUT_OF_MEMORY, "returned null"},
               {Behaviour::throws, ADAMAS_OUT_OF_MEMORY, "threw an exception"},
               {Behaviour::throws_anything, ADAMAS_OUT_OF_MEMORY, "threw an exception"},
               {Behaviour::misaligned, ADAMAS_INVALID_ARGUMENT, "aligned to 64 bytes"}};
  Books books;
  const Context context(books.options());
  for (const auto& [behaviour, status, rule] : cases) {
    books.behaviour = behaviour;
    void* memory = &books;
    CHECK(adamas_alloc(context.get(), 100, &memory) == status);
    CHECK(memory == nullptr);
    CHECK(books.live.empty());  // what was misaligned went back
    const Refusal refusal = refusal_of([&] { context.allocate<char>(100); });
    INFO(refusal.message);
    CHECK(refusal.status == status);
    CHECK(refusal.field == "options.allocate");
    CHECK(contains(refusal.rule, rule));
  }
  books.behaviour = Behaviour::well;
  context.allocate<char>(100);
  CHECK(books.live.empty());
}

TEST_CASE("half an allocator is refused") {
  Books books;
  ContextOptions options = books.options();
  options.release = nullptr;
  Refusal refusal = refusal_of([&] { const Context context(options); });
  CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
  CHECK(refusal.field == "options.release");
  options = books.options();
  options.allocate = nullptr;
  refusal = refusal_of([&] { const Context context(options); });
  CHECK(refusal.field == "options.allocate");
  CHECK_FALSE(refusal.hint.empty());
}

TEST_CASE("cpu: a logger hears warnings, and one that throws stops nothing") {
  // A folder that others may write is not used as a cache, which is worth a warning.
  std::string folder = std::filesystem::temp_directory_path() / "adamas-callbacks-XXXXXX";
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  REQUIRE(chmod(folder.c_str(), 0777) == 0);
  std::vector<std::string> heard;
  ContextOptions options{.device = "cpu",
                         .cache_dir = folder.c_str(),
                         .log =
                             [](void* user, adamas_log_level level, const char* line) {
                               if (level == ADAMAS_LOG_WARNING) {
                                 static_cast<std::vector<std::string>*>(user)->push_back(line);
                               }
                             },
                         .log_user = &heard};
  const Capacity capacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 64};
  CHECK(Context(options).prepare("", capacity).info().units == 3);
  REQUIRE(heard.size() == 1);
  CHECK(contains(heard.front(), folder));
  options.log = [](void*, adamas_log_level, const char*) { throw std::runtime_error("disk full"); };
  CHECK(Context(options).prepare("", capacity).info().units == 3);
  std::filesystem::remove_all(folder);
}

}  // namespace adamas::tests
