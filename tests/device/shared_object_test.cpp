// Loading from memory: what is not a whole shared object for this machine is refused before the loader sees
// it, and what is loaded is what was given.
#include "runtime/device/shared_object.hpp"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <elf.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "codegen/error.hpp"
#include "tests/device/support.hpp"
#include "templates/args.h"

using namespace adamas::runtime;
using namespace adamas::tests;
using adamas::codegen::Error;

namespace {

const std::vector<std::byte>& good_object() {
  static const std::vector<std::byte> object = compile_stages("STAGE(scan) { *args->positions = 42; }");
  return object;
}

/// What load says about an image; "" if it takes it.
std::string refusal(const std::vector<std::byte>& image) {
  try {
    SharedObject("unit", image);
    return {};
  } catch (const Error& error) {
    CHECK(error.code() == ADAMAS_DEVICE_ERROR);
    CHECK(error.value() == "unit");
    return error.what();
  }
}

template <typename Change>
std::vector<std::byte> with_header(Change change) {
  std::vector<std::byte> image = good_object();
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  change(header);
  std::memcpy(image.data(), &header, sizeof header);
  return image;
}

template <typename Change>
std::vector<std::byte> with_segments(Change change) {
  std::vector<std::byte> image = good_object();
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  for (int i = 0; i < header.e_phnum; ++i) {
    std::byte* const at = image.data() + header.e_phoff + i * sizeof(Elf64_Phdr);
    Elf64_Phdr segment;
    std::memcpy(&segment, at, sizeof segment);
    change(segment);
    std::memcpy(at, &segment, sizeof segment);
  }
  return image;
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string process_maps() {
  std::ifstream maps("/proc/self/maps");
  return {std::istreambuf_iterator<char>(maps), {}};
}

}  // namespace

TEST_CASE("a good object loads, under its name, and shows its symbols to nobody else") {
  const SharedObject object("adamas-select-head_dim=64", good_object());
  CHECK(object.symbol("adamas_scan") != nullptr);
  CHECK(object.symbol("adamas_select") == nullptr);
  CHECK(::dlsym(RTLD_DEFAULT, "adamas_scan") == nullptr);
  CHECK(says(process_maps(), "/memfd:adamas-select-head_dim=64"));
}

TEST_CASE("an object goes with its owner") {
  {
    const SharedObject object("adamas-short-lived", good_object());
  }
  CHECK_FALSE(says(process_maps(), "adamas-short-lived"));
}

TEST_CASE("a name of any length will do") {
  CHECK(SharedObject(std::string(5000, 'n'), good_object()).symbol("adamas_scan"));
}

TEST_CASE("objects for another machine are refused by name") {
  const Elf64_Half foreign = EM_RISCV;
  const std::string text = refusal(with_header([&](Elf64_Ehdr& header) { header.e_machine = foreign; }));
  CHECK(says(text, "made for this machine"));
  CHECK(says(text, "243"));
#if defined(__x86_64__)
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_machine = EM_AARCH64; })), "for 183"));
#else
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_machine = EM_X86_64; })), "for 62"));
#endif
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_ident[EI_CLASS] = ELFCLASS32; })),
             "64-bit"));
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_ident[EI_DATA] = ELFDATA2MSB; })),
             "little-endian"));
}

TEST_CASE("what is no shared object is refused") {
  CHECK(says(refusal({}), "shorter than its header"));
  CHECK(says(refusal(std::vector<std::byte>(4096)), "no ELF header"));
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_type = ET_REL; })), "shared object"));
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_phnum = 0; })), "with code"));
}

TEST_CASE("tables and segments outside the file are refused") {
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_phoff = ~0ULL - 8; })), "outside"));
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_phnum = 0xfff0; })), "outside"));
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_phentsize = 1; })), "outside"));
  CHECK(says(refusal(with_header([](Elf64_Ehdr& header) { header.e_shoff = ~0ULL; })), "cut short"));
  CHECK(says(refusal(with_segments([](Elf64_Phdr& segment) { segment.p_offset = 1ULL << 40; })), "outside"));
  CHECK(says(refusal(with_segments([](Elf64_Phdr& segment) { segment.p_filesz = ~0ULL; })), "outside"));
  CHECK(says(refusal(with_segments([](Elf64_Phdr& segment) { segment.p_vaddr = 1ULL << 60; })), "outside"));
}

TEST_CASE("every truncation is refused") {
  for (std::size_t size = 0; size < good_object().size(); size += size < 512 ? 1 : 61) {
    CAPTURE(size);
    CHECK_FALSE(
        refusal({good_object().begin(), good_object().begin() + static_cast<std::ptrdiff_t>(size)}).empty());
  }
}

TEST_CASE("no header makes the check read outside the image") {
  std::mt19937 random(19);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::byte> image = good_object();
    const std::size_t tables =
        std::min<std::size_t>(image.size(), sizeof(Elf64_Ehdr) + 8 * sizeof(Elf64_Phdr));
    for (int flips = 0; flips < 3; ++flips)
      image[random() % tables] = static_cast<std::byte>(random());
    image.resize(image.size() - random() % 64);
    image.shrink_to_fit();  // so that the address sanitizer sees the first byte beyond
    try {
      check_shared_object("unit", image);
    } catch (const Error& error) {
      CHECK(error.code() == ADAMAS_DEVICE_ERROR);
    }
  }
}

TEST_CASE("objects loaded one after the other, and at once, are never mixed up") {
  // Each load reuses the descriptor number of the one before, and with it the path that the loader sees.
  using Entry = void (*)(const adamas_abi::Args*, unsigned, unsigned, unsigned);
  constexpr int kObjects = 6;
  std::vector<std::vector<std::byte>> images;
  for (int i = 0; i < kObjects; ++i)
    images.push_back(compile_stages("STAGE(scan) { *args->positions = " + std::to_string(100 + i) + "; }"));
  const auto answer = [](const SharedObject& object) {
    int value = 0;
    adamas_abi::Args args{};
    args.positions = &value;
    reinterpret_cast<Entry>(object.symbol("adamas_scan"))(&args, 0, 0, 0);
    return value;
  };

  std::vector<std::unique_ptr<SharedObject>> loaded;
  for (const auto& image : images)
    loaded.push_back(std::make_unique<SharedObject>("unit", image));
  for (int i = 0; i < kObjects; ++i)
    CHECK(answer(*loaded[static_cast<std::size_t>(i)]) == 100 + i);
  loaded[2].reset();
  CHECK(answer(SharedObject("unit", images[5])) == 105);
  CHECK(answer(*loaded[3]) == 103);

  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 50; ++round) {
        const int i = (round * 5 + t) % kObjects;
        if (answer(SharedObject("unit", images[static_cast<std::size_t>(i)])) != 100 + i) ++wrong;
      }
    });
  for (std::thread& thread : threads)
    thread.join();
  CHECK(wrong == 0);
}
