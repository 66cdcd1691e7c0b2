// What the library promises beyond right numbers, as checks that run on any device.
#pragma once

#include <adamas/adamas.hpp>

namespace adamas::tests {

// refusals.cpp: what the host can see is wrong is refused by name, and nothing is written.
void check_bad_call_arguments(const Context& context);
void check_bad_encode_arguments(const Context& context);
void check_bad_sizes(const Context& context);
void check_old_callers(const Context& context);

// wild_data.cpp: what only the device can see is clamped or skipped, told by a status bit, and hurts nobody
// else.
void check_inert_rows(const Context& context);
void check_wild_lengths(const Context& context);
void check_wild_tables(const Context& context);
void check_wild_slots(const Context& context);
void check_wild_positions(const Context& context);
void check_wild_budgets(const Context& context);
void check_wild_numbers(const Context& context);

// guarantees.cpp: what results may depend on, and what is counted.
void check_rows_are_independent(const Context& context);
void check_counters(const Context& context);
void check_appending(const Context& context);
void check_codes_travel(const Context& context);

}  // namespace adamas::tests
