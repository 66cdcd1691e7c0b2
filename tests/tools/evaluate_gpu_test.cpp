// `adamas eval` on the bundled sample reproduces the design's accuracy table on the GPU.
#include "tests/tools/sample_accuracy.hpp"

namespace adamas::tests {

TEST_CASE("the sample's accuracy on the GPU") { check_sample_accuracy("cuda:0"); }

}  // namespace adamas::tests
