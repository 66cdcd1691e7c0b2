// The oracle's attention, against facts that do not come from its code. The whole is checked in
// sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using namespace adamas::oracle;

namespace {

using Positions = std::vector<int32_t>;

}  // namespace

TEST_SUITE("attend") {
  TEST_CASE("two tokens by hand, with soft cap and sink logit") {
    Config config{.head_dim = 1, .value_dim = 2, .hadamard = 1};
    Call call{.scale = 0.5f};
    const std::vector<float> query = {2}, keys = {1, 3}, values = {1, 10, 5, 20};
    const Rows<float> k(keys, 1, 1), v(values, 1, 2);
    const Positions both = {0, 1};
    const auto check = [&](double l0, double l1, double sink_weight) {
      const HeadOutput o = attend(config, call, query, 0, k, v, both);
      const double total = std::exp(l0) + std::exp(l1) + sink_weight;
      CHECK(o.out[0] == doctest::Approx((std::exp(l0) * 1 + std::exp(l1) * 5) / total).epsilon(1e-12));
      CHECK(o.out[1] == doctest::Approx((std::exp(l0) * 10 + std::exp(l1) * 20) / total).epsilon(1e-12));
      CHECK(o.lse == doctest::Approx(std::log(std::exp(l0) + std::exp(l1))).epsilon(1e-12));
    };
    check(1, 3, 0);
    config.soft_cap = true;
    call.soft_cap = 2;
    check(2 * std::tanh(0.5), 2 * std::tanh(1.5), 0);
    config.sink_logits = true;
    call.sink_logits = {1.25f};
    check(2 * std::tanh(0.5), 2 * std::tanh(1.5), std::exp(1.25));
    call.sink_logits = {800};  // would overflow if it did not join the maximum
    const HeadOutput o = attend(config, call, query, 0, k, v, both);
    CHECK(o.out[0] == doctest::Approx(0));
    CHECK(std::isfinite(o.lse));
  }

  TEST_CASE("nothing attended is a zero row with an LSE of -inf") {
    const Config config{.value_dim = 3, .sink_logits = true};
    const HeadOutput o =
        attend(config, Call{.sink_logits = {1}}, std::vector<float>(128, 1.0f), 0,
               Rows<float>(std::vector<float>{}, 1, 128), Rows<float>(std::vector<float>{}, 1, 3), {});
    CHECK(o.out == std::vector<double>{0, 0, 0});
    CHECK(o.lse == -std::numeric_limits<double>::infinity());
  }

  TEST_CASE("parts merge by their LSE to the whole") {
    const Config config{.head_dim = 16, .value_dim = 8, .hadamard = 16};
    const Call call{.scale = 0.25f};
    Random random(11);
    const Problem p = random_problem(random, config, call, 30, RowKind::kNormal);
    const auto q = p.query_rows(config, call).at(0, 0);
    const auto part = [&](int from, int to) {
      return attend(config, call, q, 0, p.key_rows(config, call), p.value_rows(config, call),
                    all_positions({from, to}));
    };
    const HeadOutput a = part(0, 11), b = part(11, 30), whole = part(0, 30);
    const double wa = std::exp(a.lse), wb = std::exp(b.lse);
    CHECK(std::log(wa + wb) == doctest::Approx(whole.lse));
    for (size_t e = 0; e < 8; ++e) {
      CHECK((wa * a.out[e] + wb * b.out[e]) / (wa + wb) == doctest::Approx(whole.out[e]));
    }
  }
}
