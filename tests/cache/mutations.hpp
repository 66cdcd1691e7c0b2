// Damaged entries and packs in great number: none is loaded, none crashes, none is fatal.
#pragma once

namespace adamas::tests {

/// Mutates an entry of a folder (bits flipped, cut short, blocks zeroed, mostly where lengths are) and looks it
/// up: each time it is a miss with at most one warning, mended by one compile.
void check_mutated_entries(int rounds, unsigned seed);

/// The same with a pack: each time every kernel asked for is right, from the pack or compiled.
void check_mutated_packs(int rounds, unsigned seed);

}  // namespace adamas::tests
