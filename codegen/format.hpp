// fmt, with what formats text compiled once, in format.cpp. The header-only library (Debian has no static one) makes
// that anew in every file that formats anything: 3 of the 5 seconds that a short file took.
#pragma once

#include <fmt/format.h>

// Later versions declare it in another way, and work without this.
#if FMT_VERSION < 100000
extern template void fmt::detail::vformat_to<char>(fmt::detail::buffer<char>&, fmt::basic_string_view<char>,
                                                   fmt::basic_format_args<fmt::buffer_context<char>>,
                                                   fmt::detail::locale_ref);
#endif
