// check and rebuild on any device: codes that fell out of step with their keys are found and mended.
#pragma once

#include <adamas/adamas.hpp>

namespace adamas::tests {

void check_stale_codes(const Context& context);
void check_bad_check_arguments(const Context& context);

}  // namespace adamas::tests
