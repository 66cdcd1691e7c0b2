// The parts of a CPU translation unit that a generator writes: constants of the specialization, and
// straight-line code for what depends on the bucket count. Everything else is in templates/cpu.
#pragma once

#include <string>

#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"

namespace adamas::codegen {

/// `constexpr` values, formats and the Hadamard matrix across.
std::string cpu_constants(const Spec&, const Tuning&);

/// bucket(), pack_nibble(), code_of(): rotated value -> code -> nibble -> code.
std::string cpu_code_functions(const Spec&);

/// unit_indexes(), unit_entries(): codes -> table indexes, query -> table.
std::string cpu_scan_functions(const Spec&);

}  // namespace adamas::codegen
