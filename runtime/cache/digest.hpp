// 128-bit xxHash, as the cache uses it: names of keys and checksums of files. Not a defence against an
// attacker; the owner and mode of the cache folder are.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace adamas::runtime {

/// In canonical (big-endian) byte order, equal on every machine.
using Digest = std::array<unsigned char, 16>;

Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::string_view text);

/// 32 lower-case hex digits.
std::string hex(const Digest&);

}  // namespace adamas::runtime
