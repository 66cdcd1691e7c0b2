// Processes that publish entries and are killed at random moments: what they leave is a usable cache.
#pragma once

namespace adamas::tests {

/// Each round starts a process that publishes kernels into one folder without end, kills it (SIGKILL), and
/// checks the folder from this process: every entry there is whole, nobody is warned of anything, and a key
/// that the dead process had locked is had at once.
void check_killed_publishers(int rounds, unsigned seed);

}  // namespace adamas::tests
