// The whole oracle in one include. See config.hpp for what it is and the shapes it takes.
//
//   Random random(1);
//   Problem p = random_problem(random, config, call, tokens, RowKind::kInteger);
//   auto codes = encode_keys(config, p.key_rows(config, call), p.thresholds.key);
//   Output want = decode(config, call, p.query_rows(config, call), p.key_rows(config, call),
//                        p.value_rows(config, call), p.thresholds);
#pragma once

#include "tests/oracle/attend.hpp"       // IWYU pragma: export
#include "tests/oracle/calibrate.hpp"    // IWYU pragma: export
#include "tests/oracle/codes.hpp"        // IWYU pragma: export
#include "tests/oracle/config.hpp"       // IWYU pragma: export
#include "tests/oracle/decode.hpp"       // IWYU pragma: export
#include "tests/oracle/hadamard.hpp"     // IWYU pragma: export
#include "tests/oracle/metrics.hpp"      // IWYU pragma: export
#include "tests/oracle/numbers.hpp"      // IWYU pragma: export
#include "tests/oracle/random_data.hpp"  // IWYU pragma: export
#include "tests/oracle/select.hpp"       // IWYU pragma: export
#include "tests/oracle/stored.hpp"       // IWYU pragma: export
