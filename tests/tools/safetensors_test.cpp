// Safetensors files: what is written is read back, and every malformed file is refused with file, tensor and
// rule.
#include "tools/safetensors.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "codegen/error.hpp"

using adamas::codegen::Error;
using namespace adamas::tools;

namespace {

namespace fs = std::filesystem;

/// A folder of its own for each test, removed at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "adamas-safetensors-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }

  std::string file(const std::string& name) const { return path_ / name; }
  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::string with_length(uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i)
    bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes + rest;
}

/// The bytes of a file with this header and so many data bytes 0, 1, 2, ...
std::string image(const std::string& header, size_t data_bytes) {
  std::string data(data_bytes, '\0');
  for (size_t i = 0; i < data_bytes; ++i)
    data[i] = static_cast<char>(i);
  return with_length(header.size(), header + data);
}

SafetensorsFile parse(const std::string& bytes) {
  return SafetensorsFile::from_bytes(std::as_bytes(std::span(bytes)), "input.safetensors");
}

/// Message of the error that parsing raises; fails the test if it raises none.
std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    CHECK(e.code() == ADAMAS_IO_ERROR);
    CHECK(e.field() == "input.safetensors");
    CHECK_FALSE(e.rule().empty());
    return e.what();
  }
  FAIL("accepted: " << bytes.substr(8));
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

/// Header with one tensor `t` of these raw JSON fields.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("a file by hand") {
  const std::string bytes =
      image(R"({"b":{"data_offsets":[4,12],"dtype":"F32","shape":[2]},"__metadata__":{"k":"v \u00e9"},)"
            R"("a":{"dtype":"I16","shape":[1,2],"data_offsets":[0,4]}}   )",
            12);
  const SafetensorsFile file = parse(bytes);
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.tensors()[0].name == "a");  // in the order of the data
  CHECK(file.metadata() == Metadata{{"k", "v é"}});
  const Tensor& a = file.at("a");
  CHECK(a.dtype == DType::kI16);
  CHECK(a.shape == std::vector<uint64_t>{1, 2});
  CHECK(a.elements() == 2);
  CHECK(file.copy<int16_t>(a) == std::vector<int16_t>{0x0100, 0x0302});
  CHECK(file.find("b")->bytes.size() == 8);
  CHECK(file.find("c") == nullptr);
  CHECK_THROWS_WITH_AS(file.at("c"), doctest::Contains("input.safetensors: has no tensor 'c'"), Error);
  CHECK_THROWS_WITH_AS(file.copy<float>(a), doctest::Contains("tensor 'a': dtype I16"), Error);
}

TEST_CASE("scalars, empty tensors, empty files and misaligned data are valid") {
  CHECK(parse(image("{}", 0)).tensors().empty());

  const std::string empty =
      R"({"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"z":{"dtype":"F64","shape":[3,0,2],"data_offsets":[1,1]},)"
      R"("y":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})";
  const std::string bytes = image(empty, 1);
  const SafetensorsFile file = parse(bytes);
  CHECK(file.at("s").elements() == 1);
  CHECK(file.at("z").elements() == 0);
  CHECK(file.copy<double>(file.at("z")).empty());

  // At each offset of a buffer, so that the data is misaligned in every way.
  for (size_t shift = 0; shift < 8; ++shift) {
    const std::string shifted = std::string(shift, 'x') + image(one(R"("U32")", "[2]", "[0,8]"), 8);
    const SafetensorsFile f =
        SafetensorsFile::from_bytes(std::as_bytes(std::span(shifted)).subspan(shift), "shifted");
    CHECK(f.copy<uint32_t>(f.at("t")) == std::vector<uint32_t>{0x03020100, 0x07060504});
  }
}

TEST_CASE("every dtype has its name and width") {
  const std::pair<const char*, int> known[] = {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},
                                               {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"U8", 8},
                                               {"I8", 8},      {"U16", 16},    {"I16", 16},    {"F16", 16},
                                               {"BF16", 16},   {"U32", 32},    {"I32", 32},    {"F32", 32},
                                               {"U64", 64},    {"I64", 64},    {"F64", 64},    {"C64", 64}};
  for (const auto& [name, bits] : known) {
    const size_t size = 8 * static_cast<size_t>(bits) / 8;  // of 8 elements
    const std::string bytes =
        image(one('"' + std::string(name) + '"', "[8]", "[0," + std::to_string(size) + "]"), size);
    const SafetensorsFile file = parse(bytes);
    CHECK(dtype_name(file.at("t").dtype) == name);
    CHECK(dtype_bits(file.at("t").dtype) == bits);
  }
  CHECK(contains(refusal(image(one(R"("F4")", "[3]", "[0,1]"), 1)), "whole number of bytes"));
  CHECK(contains(refusal(image(one(R"("F17")", "[1]", "[0,2]"), 2)), "'t': dtype is unknown: 'F17'"));
}

TEST_CASE("the header's length is checked before anything else") {
  CHECK(contains(refusal(""), "truncated"));
  CHECK(contains(refusal("1234567"), "truncated"));
  CHECK(contains(refusal(with_length(0, "")), "'{'"));
  CHECK(contains(refusal(with_length(3, "{}")), "truncated"));
  for (const uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}}) {
    CHECK(contains(refusal(with_length(length, "{}")), "above 100000000"));
  }
  CHECK(contains(refusal(with_length(100'000'000, "{}")), "truncated"));
}

TEST_CASE("the header must be one JSON object, in UTF-8, and no more") {
  for (const char* header : {"[]", " {}", "\xef\xbb\xbf{}", "null", "\"{}\""}) {
    CHECK(contains(refusal(image(header, 0)), "must begin with '{'"));
  }
  for (const char* header : {"{", "{}}", "{} x", "{\"a\"}", "{\"a\":1,}", "{,}", "{'a':{}}", "{} // c"}) {
    CHECK_FALSE(refusal(image(header, 0)).empty());
  }
  CHECK(contains(refusal(image("{\"\xff\":{}}", 0)), "not valid UTF-8"));
  CHECK(contains(refusal(image("{\"\xed\xa0\x80\":{}}", 0)), "not valid UTF-8"));  // a surrogate
  CHECK(contains(refusal(image(std::string("{}\0garbage", 10), 0)), "NUL"));
  CHECK(contains(refusal(image("{}" + std::string(5, '\0'), 0)), "NUL"));
}

TEST_CASE("deep nesting is refused at its first level too many") {
  const std::string open(1'000'000, '[');
  CHECK(contains(refusal(image(one(R"("U8")", open, "[0,1]"), 0)), "shape must hold whole numbers"));
  CHECK(contains(refusal(image(R"({"t":)" + open, 0)), "must be an object, not an array"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i)
    objects += R"({"a":)";
  CHECK(contains(refusal(image(objects, 0)), "not 'a'"));
}

TEST_CASE("wrong types and fields") {
  const auto rejects = [](const std::string& header, const std::string& part) {
    const std::string message = refusal(image(header, 1));
    CHECK_MESSAGE(contains(message, part), message);
  };
  for (const char* value : {"1", "-1", "1.5", "null", "true", "[]", "\"x\""}) {
    rejects(R"({"t":)" + std::string(value) + "}", "tensor 't' must be an object");
    rejects(R"({"__metadata__":)" + std::string(value) + "}", "__metadata__ must be an object");
  }
  for (const char* value : {"1", "null", "true", "[]", "{}"}) {
    rejects(R"({"__metadata__":{"k":)" + std::string(value) + "}}", "metadata 'k' must be a string");
    rejects(one(value, "[1]", "[0,1]"), "tensor 't': dtype must be a string");
  }
  for (const char* value : {"1", "null", "\"1\"", "{}"}) {
    rejects(one(R"("U8")", value, "[0,1]"), "tensor 't': shape must be an array");
    rejects(one(R"("U8")", "[1]", value), "tensor 't': data_offsets must be an array");
  }
  for (const char* value :
       {"-1", "1.0", "1e0", "18446744073709551616", "null", "\"1\"", "[1]", "{}", "true"}) {
    rejects(one(R"("U8")", std::string("[").append(value).append("]"), "[0,1]"),
            "tensor 't': shape must hold whole numbers");
    rejects(one(R"("U8")", "[1]", std::string("[0,").append(value).append("]")),
            "tensor 't': data_offsets must hold whole numbers");
  }
  rejects(one(R"("U8")", "[1e999]", "[0,1]"), "too large");
  rejects(one(R"("U8")", "[1]", "[]"), "must be [begin, end]");
  rejects(one(R"("U8")", "[1]", "[0]"), "must be [begin, end]");
  rejects(one(R"("U8")", "[1]", "[0,1,1]"), "must be [begin, end]");
  rejects(R"({"t":{"shape":[1],"data_offsets":[0,1]}})", "dtype is missing");
  rejects(R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", "shape is missing");
  rejects(R"({"t":{"dtype":"U8","shape":[1]}})", "data_offsets is missing");
  rejects(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}})", "not 'more'");

  std::string many = "[1";
  for (size_t i = 0; i < SafetensorsFile::kMaxRank; ++i)
    many += ",1";
  rejects(one(R"("U8")", many + "]", "[0,1]"), "at most 64 dimensions");
}

TEST_CASE("repeated names") {
  const std::string t = R"("t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  CHECK(contains(refusal(image("{" + t + "," + t + "}", 1)), "tensor 't' appears twice"));
  CHECK(
      contains(refusal(image(R"({"__metadata__":{},"__metadata__":{}})", 0)), "__metadata__ appears twice"));
  CHECK(
      contains(refusal(image(R"({"__metadata__":{"a":"1","a":"2"}})", 0)), "metadata key 'a' appears twice"));
  CHECK(contains(refusal(image(R"({"t":{"dtype":"U8","dtype":"U8"}})", 0)), "dtype appears twice"));
  CHECK(contains(refusal(image(R"({"t":{"shape":[],"shape":[]}})", 0)), "shape appears twice"));
  CHECK(contains(
      refusal(image(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}})", 1)),
      "data_offsets appears twice"));
  // The same name, once escaped.
  CHECK(contains(refusal(image("{" + t + R"(,"\u0074":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2)),
                 "tensor 't' appears twice"));
}

TEST_CASE("ranges must tile the data") {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}";
  };
  CHECK(parse(image(two("[2,4]", "[0,2]"), 4)).tensors()[0].name == "b");  // any order in the header
  CHECK(contains(refusal(image(two("[0,2]", "[1,3]"), 3)), "tensor 'b': data overlaps"));
  CHECK(contains(refusal(image(two("[0,2]", "[0,2]"), 2)), "tensor 'b': data overlaps"));
  CHECK(contains(refusal(image(two("[0,2]", "[3,5]"), 5)), "tensor 'b': data begins after a hole"));
  CHECK(contains(refusal(image(two("[1,3]", "[3,5]"), 5)), "tensor 'a': data begins after a hole"));
  CHECK(contains(refusal(image(two("[0,2]", "[2,4]"), 5)), "1 bytes at the end"));
  CHECK(contains(refusal(image(two("[0,2]", "[2,4]"), 3)), "tensor 'b': data_offsets [2, 4] must lie in"));
  CHECK(contains(refusal(image("{}", 1)), "1 bytes at the end"));
  CHECK(contains(refusal(image(one(R"("U8")", "[2]", "[2,0]"), 2)), "must ascend"));
  CHECK(contains(refusal(image(one(R"("U8")", "[0]", "[18446744073709551615,18446744073709551615]"), 0)),
                 "must lie in"));
  CHECK(contains(refusal(image(one(R"("U8")", "[3]", "[0,2]"), 2)), "span the 3 bytes"));
  CHECK(contains(refusal(image(one(R"("F32")", "[]", "[0,2]"), 2)), "span the 4 bytes"));
}

TEST_CASE("sizes that overflow are refused") {
  const char* const shapes[] = {"[18446744073709551615]", "[4294967296,4294967296]",
                                "[9223372036854775808,2]", "[2305843009213693952]",
                                "[9223372036854775807,9223372036854775807,0]"};
  for (const char* shape : shapes) {
    CHECK(contains(refusal(image(one(R"("F32")", shape, "[0,0]"), 0)), "'t': shape times dtype"));
  }
}

TEST_CASE("names in messages are short and harmless") {
  const std::string message = refusal(image(R"({"\u001b[31m)" + std::string(5000, 'n') + R"(":1})", 0));
  CHECK(message.size() < 300);
  CHECK(message.find('\x1b') == message.npos);
  // Cut between characters, not inside one.
  const std::string accents = refusal(image(
      R"({"x)" +
          [] {
            std::string s;
            for (int i = 0; i < 100; ++i)
              s += "é";
            return s;
          }() +
          R"(":1})",
      0));
  CHECK(contains(accents, "é...'"));
}

TEST_CASE("no prefix of a file and no changed byte of its header gets past the checks unsafely") {
  const std::string whole =
      image(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
            R"("b":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})",
            19);
  REQUIRE(parse(whole).tensors().size() == 2);
  for (size_t n = 0; n < whole.size(); ++n)
    refusal(whole.substr(0, n));
  int accepted = 0;
  for (size_t i = 0; i < whole.size() - 19; ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = whole;
      changed[i] = static_cast<char>(value);
      try {
        uint64_t bytes = 0;
        const SafetensorsFile file = parse(changed);
        for (const Tensor& t : file.tensors())
          bytes += t.bytes.size();
        REQUIRE(bytes == 19);  // what is accepted still tiles the data
        ++accepted;
      } catch (const Error&) {
      }
    }
  }
  CHECK(accepted > 0);  // other names and metadata are as good
}

TEST_CASE("what is written is read back, aligned") {
  const Folder folder;
  const std::string path = folder.file("out.safetensors");
  std::vector<std::byte> data(1024);
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<std::byte>(i * 7);
  const auto bytes = [&](size_t n) { return std::span<const std::byte>(data).first(n); };
  const std::vector<TensorData> tensors = {{"odd", DType::kU8, {3}, bytes(3)},
                                           {"scalar", DType::kF64, {}, bytes(8)},
                                           {"half \"é\"\n", DType::kF16, {2, 5}, bytes(20)},
                                           {"empty", DType::kF32, {0, 4}, {}},
                                           {"thresholds", DType::kF32, {4, 3}, bytes(48)},
                                           {"four", DType::kF4, {6}, bytes(3)}};
  const Metadata metadata = {{"B", "4"}, {"model", "x"}};
  for (int round = 0; round < 2; ++round) {  // the second replaces the first
    write_safetensors(path, tensors, metadata);
    const SafetensorsFile file = SafetensorsFile::open(path);
    CHECK(file.path() == path);
    CHECK(file.metadata() == metadata);
    REQUIRE(file.tensors().size() == tensors.size());
    for (const TensorData& want : tensors) {
      const Tensor& got = file.at(want.name);
      CHECK(got.dtype == want.dtype);
      CHECK(got.shape == want.shape);
      CHECK(std::equal(got.bytes.begin(), got.bytes.end(), want.bytes.begin(), want.bytes.end()));
      const auto width = static_cast<uintptr_t>(dtype_bits(got.dtype)) / 8;
      if (width > 0) CHECK(reinterpret_cast<uintptr_t>(got.bytes.data()) % width == 0);
    }
  }
  CHECK(folder.entries() == 1);  // no temporary left
  CHECK(static_cast<unsigned char>(read_bytes(path)[0]) % 8 == 0);

  const mode_t mask = ::umask(0);
  ::umask(mask);
  struct stat status = {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == (0666 & ~mask));

  SafetensorsFile moved = SafetensorsFile::open(path);
  const std::byte* const before = moved.at("thresholds").bytes.data();
  const SafetensorsFile here = std::move(moved);
  CHECK(here.at("thresholds").bytes.data() == before);

  write_safetensors(path, {});
  CHECK(SafetensorsFile::open(path).tensors().empty());
}

TEST_CASE("tensors that cannot be are not written") {
  const Folder folder;
  const std::string path = folder.file("out.safetensors");
  const std::byte data[8] = {};
  const auto refused = [&](const std::vector<TensorData>& tensors, const Metadata& metadata,
                           const char* part) {
    try {
      write_safetensors(path, tensors, metadata);
      FAIL("accepted");
    } catch (const Error& e) {
      CHECK(e.code() == ADAMAS_INVALID_ARGUMENT);
      CHECK_MESSAGE(contains(e.what(), part), e.what());
    }
    CHECK(folder.entries() == 0);
  };
  refused({{"a", DType::kF32, {1}, data}}, {}, "tensor 'a': 8 bytes given");
  refused({{"a", DType::kF64, {}, data}, {"a", DType::kF64, {}, data}}, {}, "given twice");
  refused({{"__metadata__", DType::kF64, {}, data}}, {}, "reserved");
  refused({{"\xff", DType::kF64, {}, data}}, {}, "UTF-8");
  refused({}, {{"k", "\xff"}}, "UTF-8");
  refused({{"a", DType::kU8, {~uint64_t{0}, 2}, data}}, {}, "not what its shape");
  refused({{"a", DType::kF64, std::vector<uint64_t>(65, 1), data}}, {}, "64 dimensions");
}

TEST_CASE("a write that fails keeps the old file and leaves nothing behind") {
  const Folder folder;
  const std::string path = folder.file("out.safetensors");
  const std::vector<std::byte> large(1 << 20);
  write_safetensors(path, {}, {{"version", "old"}});

  rlimit old_limit = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  rlimit small = old_limit;
  small.rlim_cur = 4096;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    write_safetensors(path, {{"large", DType::kU8, {large.size()}, large}});
  } catch (const Error& e) {
    message = e.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);

  CHECK(contains(message, "out.safetensors: cannot be written: File too large"));
  CHECK(SafetensorsFile::open(path).metadata().at("version") == "old");
  CHECK(folder.entries() == 1);

  CHECK_THROWS_WITH_AS(write_safetensors(folder.file("no/such"), {}),
                       doctest::Contains("cannot be created: No such file"), Error);
  fs::create_directory(folder.file("folder"));
  CHECK_THROWS_WITH_AS(write_safetensors(folder.file("folder"), {}), doctest::Contains("cannot be replaced"),
                       Error);
  CHECK(folder.entries() == 2);
}

TEST_CASE("only regular files are opened") {
  const Folder folder;
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.file("none")),
                       doctest::Contains("none: cannot be opened"), Error);
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.file("")), doctest::Contains("regular file"), Error);
  REQUIRE(::mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.file("pipe")), doctest::Contains("regular file"), Error);
  write_bytes(folder.file("empty"), "");
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.file("empty")), doctest::Contains("truncated"), Error);
  write_bytes(folder.file("bad"), image("{}", 3));
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.file("bad")), doctest::Contains("bad: 3 bytes"), Error);
}
