// How adamas-cc hands its result to the library: the framed answer on its standard output.
//
// A host process may reap children it did not start (waitpid(-1), SIGCHLD ignored), so an exit status can be
// lost. The answer therefore ends with a footer that carries status and lengths; without a whole footer there
// is no result.
//
//   binary bytes | identity (JSON text) | magic, status, binary length, identity length (four little-endian
//   words)
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace adamas::runtime {

struct CcAnswer {
  std::uint64_t status = 0;  ///< adamas-cc's exit status: 0 compiled, 1 refused, 2 wrong options
  std::string_view binary;   ///< empty unless status is 0; points into the parsed text
  std::string_view identity;
};

inline constexpr std::uint64_t kCcMagic = 0x314343534d414441;  // "ADAMSCC1"
inline constexpr std::size_t kCcFooterBytes = 4 * sizeof(std::uint64_t);

/// The text that follows the binary on the stream.
inline std::string cc_trailer(std::uint64_t status, std::size_t binary_bytes, std::string_view identity) {
  const std::uint64_t words[4] = {kCcMagic, status, binary_bytes, identity.size()};
  std::string text(identity);
  text.append(reinterpret_cast<const char*>(words), sizeof words);
  return text;
}

/// @param stream  everything adamas-cc wrote to its standard output; must outlive the answer
/// @return        nothing when the stream was cut short or is not an answer
inline std::optional<CcAnswer> parse_cc_answer(std::string_view stream) {
  if (stream.size() < kCcFooterBytes) return std::nullopt;
  std::uint64_t words[4];
  std::memcpy(words, stream.data() + stream.size() - kCcFooterBytes, sizeof words);
  const std::size_t body = stream.size() - kCcFooterBytes;
  const auto [magic, status, binary_bytes, identity_bytes] = words;
  if (magic != kCcMagic || binary_bytes > body || identity_bytes != body - binary_bytes) return std::nullopt;
  return CcAnswer{status, stream.substr(0, binary_bytes), stream.substr(binary_bytes, identity_bytes)};
}

}  // namespace adamas::runtime
