// Checks of the oracle itself: each step against facts that do not come from its code. The whole is checked
// in sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

using namespace adamas::oracle;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string data_file(const std::string& name) { return std::string(ADAMAS_TEST_DATA) + "/" + name; }

/// Scores 0, 0, ... except the given ones.
std::vector<int64_t> scores_with(int64_t tokens, std::initializer_list<std::pair<int, int>> set) {
  std::vector<int64_t> scores(static_cast<size_t>(tokens), 0);
  for (const auto& [position, score] : set)
    scores[static_cast<size_t>(position)] = score;
  return scores;
}

std::vector<int32_t> pick(const Config& config, Range seen, int budget, const std::vector<int64_t>& scores,
                          bool smaller_is_better = false) {
  const Selection s = select<int64_t>(config, seen, budget, scores, smaller_is_better);
  REQUIRE(s.positions.size() == static_cast<size_t>(config.budget));
  for (size_t i = static_cast<size_t>(s.count); i < s.positions.size(); ++i)
    REQUIRE(s.positions[i] == -1);
  return {s.chosen().begin(), s.chosen().end()};
}

using Positions = std::vector<int32_t>;

}  // namespace

TEST_SUITE("numbers") {
  TEST_CASE("every 16-bit pattern survives the way to float and back") {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const auto pattern = static_cast<uint16_t>(bits);
      if (std::isnan(from_f16(pattern))) {
        CHECK(std::isnan(from_f16(to_f16(from_f16(pattern)))));
      } else {
        REQUIRE(to_f16(from_f16(pattern)) == pattern);
      }
      if (std::isnan(from_bf16(pattern))) {
        CHECK(std::isnan(from_bf16(to_bf16(from_bf16(pattern)))));
      } else {
        REQUIRE(to_bf16(from_bf16(pattern)) == pattern);
      }
    }
  }

  TEST_CASE("halfway cases go to the even neighbour, all others to the nearer one") {
    // Between each pair of neighbours, positive and finite; a float holds the midpoint exactly.
    for (const Format format : {Format::kF16, Format::kBF16}) {
      const auto to = [&](float x) { return format == Format::kF16 ? to_f16(x) : to_bf16(x); };
      const auto from = [&](uint16_t b) { return format == Format::kF16 ? from_f16(b) : from_bf16(b); };
      const uint16_t infinity = format == Format::kF16 ? 0x7c00 : 0x7f80;
      for (uint16_t low = 0; low + 1 < infinity; ++low) {
        const uint16_t high = low + 1;
        const auto middle = static_cast<float>((static_cast<double>(from(low)) + from(high)) / 2);
        const uint16_t even = (low & 1) == 0 ? low : high;
        REQUIRE(to(middle) == even);
        REQUIRE(to(-middle) == (even | 0x8000));
        REQUIRE(to(std::nextafter(middle, 0.0f)) == low);
        REQUIRE(to(std::nextafter(middle, kInf)) == high);
      }
    }
  }

  TEST_CASE("known values") {
    CHECK(to_f16(1.0f) == 0x3c00);
    CHECK(to_f16(-2.0f) == 0xc000);
    CHECK(to_f16(65504.0f) == 0x7bff);
    CHECK(to_f16(65519.0f) == 0x7bff);
    CHECK(to_f16(65520.0f) == 0x7c00);
    CHECK(to_f16(0x1p-24f) == 1);
    CHECK(to_f16(0x1p-25f) == 0);
    CHECK(to_f16(-kInf) == 0xfc00);
    CHECK(to_bf16(1.0f) == 0x3f80);
    CHECK(to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
    CHECK(std::isnan(from_bf16(to_bf16(std::bit_cast<float>(0x7f800001u)))));  // NaN with low bits only
  }
}

TEST_SUITE("hadamard") {
  TEST_CASE("the matrices are Hadamard matrices with a first row of ones") {
    for (const int n : {1, 12, 20, 28}) {
      for (int r = 0; r < n; ++r) {
        CHECK(hadamard_entry(n, 0, r) == 1);
        for (int s = 0; s < n; ++s) {
          int dot = 0;
          for (int j = 0; j < n; ++j)
            dot += hadamard_entry(n, r, j) * hadamard_entry(n, s, j);
          REQUIRE(dot == (r == s ? n : 0));
        }
      }
    }
  }

  TEST_CASE("the matrices are those of the contract's file") {
    std::ifstream file(data_file("hadamard.txt"));
    REQUIRE(file.good());
    int matrices = 0;
    for (std::string line; std::getline(file, line);) {
      if (line.empty() || line[0] == '#') continue;
      std::istringstream words(line);
      int order = 0;
      char colon = 0;
      words >> order >> colon;
      for (int row = 0; row < order; ++row) {
        uint32_t bits = 0;
        REQUIRE((words >> std::hex >> bits));
        for (int j = 0; j < order; ++j) {
          REQUIRE(hadamard_entry(order, row, j) == (((bits >> j) & 1) != 0 ? -1 : 1));
        }
      }
      ++matrices;
    }
    CHECK(matrices == 3);
  }

  TEST_CASE("every size up to 512 is the product of the definition, and orthonormal") {
    Random random(7);
    int sizes = 0;
    for (const int order : {1, 12, 20, 28}) {
      for (int m = order; m <= 512; m *= 2) {
        ++sizes;
        const int radix2 = m / order;
        const std::vector<float> x = random_rows(random, RowKind::kInteger, 1, m, Format::kF32);
        const std::vector<float> y = hadamard(x, m);
        // Entry (r, i) of the Kronecker product; integers, so the sum before scaling is exact in float too.
        for (int r = 0; r < m; ++r) {
          int sum = 0;
          for (int i = 0; i < m; ++i) {
            const int walsh =
                std::popcount(static_cast<unsigned>((r % radix2) & (i % radix2))) % 2 == 0 ? 1 : -1;
            sum += walsh * hadamard_entry(order, r / radix2, i / radix2) * static_cast<int>(x[i]);
          }
          REQUIRE(y[r] ==
                  static_cast<float>(sum) * static_cast<float>(1 / std::sqrt(static_cast<double>(m))));
        }
      }
    }
    CHECK(sizes == 10 + 6 + 5 + 5);
  }

  TEST_CASE("blocks smaller than the head rotate on their own; a size of 1 changes nothing") {
    Random random(8);
    const std::vector<float> x = random_rows(random, RowKind::kNormal, 1, 96, Format::kF16);
    const std::vector<float> blocks = hadamard(x, 32);
    for (int b = 0; b < 3; ++b) {
      const std::vector<float> one = hadamard(std::span(x).subspan(32 * b, 32), 32);
      CHECK(std::equal(one.begin(), one.end(), blocks.begin() + 32 * b));
    }
    CHECK(hadamard(x, 1) == x);
    CHECK_THROWS(hadamard(x, 64));  // does not divide 96
    CHECK_THROWS(hadamard(x, 6));   // not 2^k * {1, 12, 20, 28}
  }

  TEST_CASE("rounding happens step by step, in the contract's order") {
    // 1 + 2^-24 rounds to 1 in the first butterfly; a wider or fused sum would keep it.
    const std::vector<float> y = hadamard(std::vector<float>{1, 0x1p-24f, 0, 0}, 4);
    CHECK(y == std::vector<float>{0.5f, 0.5f * (1 - 0x1p-24f), 0.5f, 0.5f * (1 - 0x1p-24f)});

    // Beside 2^24 a one is lost: what is left of it tells the order. Element 0 is the sum of all.
    const auto first = [](int m, std::initializer_list<float> leading) {
      std::vector<float> x(leading);
      x.resize(static_cast<size_t>(m));
      return hadamard(x, m)[0];
    };
    constexpr float kBig = 0x1p24f;
    CHECK(first(4, {kBig, 1, -kBig, 0}) == 0.0f);   // stride 1 before stride 2
    CHECK(first(24, {kBig, 1, -kBig, 0}) == 0.0f);  // radix 2 before the matrix
    CHECK(first(12, {kBig, 1, -kBig, 0}) == 0.0f);  // the matrix from the left
  }
}

TEST_SUITE("codes") {
  TEST_CASE("thresholds are strict, NaN is below all, infinity above") {
    const std::vector<float> thresholds = {-1, 0, 1};
    const std::vector<float> y = {-1.5f, -1, -0.5f, 0, 0x1p-149f, 1, 1.5f, kNan, kInf, -kInf, -0.0f};
    CHECK(bucketize(y, thresholds) == std::vector<uint8_t>{0, 0, 1, 1, 2, 2, 3, 0, 3, 0, 1});
    CHECK(bucketize(y, std::vector<float>{kNan, kNan, kNan}) == std::vector<uint8_t>(11, 0));
  }

  TEST_CASE("query integers") {
    // s = 7 / 7 = 1: the ratios are the values, halves go to even.
    CHECK(quantize_query(std::vector<float>{7, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -7}, 4) ==
          std::vector<int32_t>{7, 0, 2, 2, 0, -2, -2, -7});
    CHECK(quantize_query(std::vector<float>{0, -0.0f}, 4) == std::vector<int32_t>{0, 0});
    for (const float bad : {kNan, kInf, -kInf}) {
      CHECK(quantize_query(std::vector<float>{1, bad, 2}, 4) == std::vector<int32_t>{0, 0, 0});
    }
    // M = 3 for 3 bits, 127 for 8.
    CHECK(quantize_query(std::vector<float>{1, -2, 3}, 3) == std::vector<int32_t>{1, -2, 3});
    CHECK(quantize_query(std::vector<float>{127, -64, 0.5f}, 8) == std::vector<int32_t>{127, -64, 0});
    // The smallest subnormal / 7 is 0 in float: the scale vanishes, and so do the integers.
    CHECK(quantize_query(std::vector<float>{0x1p-149f}, 4) == std::vector<int32_t>{0});
    // Subnormal scales round coarsely: 10 steps / 7 is 1 step, the ratio 10 is cut to M.
    CHECK(quantize_query(std::vector<float>{10 * 0x1p-149f, -10 * 0x1p-149f}, 4) ==
          std::vector<int32_t>{7, -7});
  }

  TEST_CASE("division is true division: a reciprocal would change integers") {
    // y / s against y * (1 / s) on integer-valued rows.
    int differing = 0;
    for (int largest = 1; largest <= 64; ++largest) {
      for (int value = 0; value <= largest; ++value) {
        const auto y = static_cast<float>(value);
        const float s = static_cast<float>(largest) / 7.0f;
        const int want = static_cast<int>(std::nearbyint(y / s));
        CHECK(quantize_query(std::vector<float>{static_cast<float>(largest), y}, 4)[1] == want);
        if (static_cast<int>(std::nearbyint(y * (1.0f / s))) != want) ++differing;
      }
    }
    CHECK(differing > 0);
  }

  TEST_CASE("scores by hand") {
    Config config;
    config.buckets = 4;
    const std::vector<uint8_t> key = {0, 1, 2, 3};
    CHECK(score(config, std::vector<int32_t>{7, -1, 2, -7}, key) == 7 * -3 + -1 * -1 + 2 * 1 + -7 * 3);
    config.estimator = Estimator::kManhattan;
    CHECK(score(config, std::vector<int32_t>{3, 1, 0, 2}, key) == 3 + 0 + 2 + 1);
  }

  TEST_CASE("a dot score is the inner product with the codes' midpoints, a KV head takes its group's best") {
    for (const Estimator estimator : {Estimator::kDot, Estimator::kManhattan}) {
      Config config{.head_dim = 32, .value_dim = 32, .hadamard = 32, .estimator = estimator, .group = 3};
      Call call{.kv_heads = 2};
      Random random(3);
      const Problem p = random_problem(random, config, call, 40, RowKind::kNormal);
      const auto codes = encode_keys(config, p.key_rows(config, call), p.thresholds.key);
      const auto integers = encode_queries(config, p.query_rows(config, call), p.thresholds.query);
      const Rows<uint8_t> code_rows(codes, 2, 32);
      const Rows<int32_t> integer_rows(integers, 6, 32);
      const auto per_query = scores(config, call, integer_rows, code_rows);
      REQUIRE(per_query.size() == 6 * 40);
      config.scope = Scope::kKvHead;
      const auto per_kv = scores(config, call, integer_rows, code_rows);
      REQUIRE(per_kv.size() == 2 * 40);
      for (size_t h = 0; h < 2; ++h) {
        for (size_t t = 0; t < 40; ++t) {
          const std::array<int64_t, 3> group = {per_query[(3 * h) * 40 + t], per_query[(3 * h + 1) * 40 + t],
                                                per_query[(3 * h + 2) * 40 + t]};
          const int64_t best = estimator == Estimator::kDot ? *std::max_element(group.begin(), group.end())
                                                            : *std::min_element(group.begin(), group.end());
          CHECK(per_kv[h * 40 + t] == best);
        }
      }
    }
  }
}

TEST_SUITE("select") {
  TEST_CASE("the better score wins, among equals the later position") {
    Config config{.budget = 4};
    CHECK(pick(config, {0, 10}, 4, scores_with(10, {{1, 5}, {2, 3}})) == Positions{1, 2, 8, 9});
    CHECK(pick(config, {0, 10}, 4, scores_with(10, {{9, -99}})) == Positions{6, 7, 8, 9});  // 9 is forced
    CHECK(pick(config, {0, 10}, 4, scores_with(10, {{1, 5}, {2, -3}}), true) == Positions{2, 7, 8, 9});
    CHECK(pick(config, {0, 3}, 4, scores_with(3, {})) == Positions{0, 1, 2});
    CHECK(pick(config, {0, 0}, 4, {}).empty());
  }

  TEST_CASE("forced tokens count in the budget") {
    const Config config{.budget = 5, .sink = 2, .recent = 2};
    const auto scores = scores_with(20, {{0, 9}, {1, -9}, {18, 9}, {19, -9}, {5, 1}, {6, 1}});
    CHECK(pick(config, {0, 20}, 5, scores) == Positions{0, 1, 6, 18, 19});
    // A smaller budget of the row gives up what is earliest, whatever the scores of the forced.
    CHECK(pick(config, {0, 20}, 3, scores) == Positions{1, 18, 19});
    CHECK(pick(config, {0, 20}, 1, scores) == Positions{19});
    CHECK(pick(config, {0, 20}, 0, scores).empty());
  }

  TEST_CASE("sinks outside the window are not forced, nor is anything that is not seen") {
    const Config config{.budget = 3, .sink = 2, .recent = 1};
    CHECK(pick(config, {1, 20}, 3, scores_with(20, {{7, 9}})) == Positions{1, 7, 19});
    CHECK(pick(config, {8, 20}, 3, scores_with(20, {{7, 9}, {9, 1}})) == Positions{9, 18, 19});
  }

  TEST_CASE("rows, windows and budgets") {
    Config config{.query_rows = 3, .window = true};
    Call call;
    call.window = 4;
    const auto range = [&](int64_t tokens, int row) {
      const Range r = visible(config, call, tokens, row);
      return std::pair(r.begin, r.end);
    };
    CHECK(range(10, 0) == std::pair<int64_t, int64_t>(4, 8));
    CHECK(range(10, 2) == std::pair<int64_t, int64_t>(6, 10));
    CHECK(range(4, 0) == std::pair<int64_t, int64_t>(0, 2));
    CHECK(range(2, 0).second == 0);  // row 0 of 3 stands before the sequence
    CHECK(range(2, 1) == std::pair<int64_t, int64_t>(0, 1));
    CHECK(range(0, 2).second == 0);
    config.window = false;
    CHECK(range(10, 1) == std::pair<int64_t, int64_t>(0, 9));

    config.budget = 8;
    CHECK(row_budget(config, call, 2) == 8);
    call.row_budget = {3, 99, -1};
    CHECK(row_budget(config, call, 0) == 3);
    CHECK(row_budget(config, call, 1) == 8);
    CHECK(row_budget(config, call, 2) == 0);
  }
}

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

TEST_SUITE("decode") {
  TEST_CASE("rows decide by their own length; a budget that covers the row equals dense") {
    Config config{.head_dim = 32, .value_dim = 16, .hadamard = 32, .budget = 6, .group = 2, .query_rows = 4};
    Call call{.kv_heads = 2, .scale = 0.2f};
    Random random(5);
    for (const int64_t tokens : {0, 1, 3, 5, 6, 7, 8, 9, 30}) {
      const Problem p = random_problem(random, config, call, tokens, RowKind::kInteger);
      const auto q = p.query_rows(config, call);
      const auto k = p.key_rows(config, call);
      const auto v = p.value_rows(config, call);
      const Output sparse = decode(config, call, q, k, v, p.thresholds);
      const Output full = dense(config, call, q, k, v);
      REQUIRE(sparse.out.size() == 4 * 4 * 16);
      REQUIRE(sparse.lse.size() == 4 * 4);
      for (int row = 0; row < 4; ++row) {
        const int64_t seen = visible(config, call, tokens, row).size();
        CHECK(sparse.is_dense[static_cast<size_t>(row)] == (seen <= 6 ? 1 : 0));
        for (size_t h = 0; h < 4; ++h) {
          const size_t at = static_cast<size_t>(row) * 4 + h;
          if (seen <= 6) {
            CHECK(sparse.lse[at] == full.lse[at]);
          } else {
            CHECK(sparse.lse[at] < full.lse[at]);
          }
        }
      }
      call.dense_below = 1000;
      CHECK(decode(config, call, q, k, v, p.thresholds).out == full.out);
      call.dense_below = 0;  // select what the row sees: the same tokens when they fit the budget
      const Output selected = decode(config, call, q, k, v, p.thresholds);
      CHECK(selected.out == sparse.out);
      call.dense_below = -1;
    }
  }

  TEST_CASE("a bad row leaves the others alone") {
    Config config{.head_dim = 16, .value_dim = 16, .hadamard = 16, .budget = 4, .query_rows = 2};
    const Call call{.scale = 0.25f};
    Random random(6);
    Problem p = random_problem(random, config, call, 20, RowKind::kNormal);
    const auto run = [&] {
      return decode(config, call, p.query_rows(config, call), p.key_rows(config, call),
                    p.value_rows(config, call), p.thresholds);
    };
    const Output before = run();
    p.queries[0] = kNan;
    const Output after = run();
    CHECK(std::equal(before.out.begin() + 16, before.out.end(), after.out.begin() + 16));
    CHECK(std::isnan(after.out[0]));
  }

  TEST_CASE("query head scope and KV head scope pick the set of the right head") {
    Config config{.head_dim = 16, .value_dim = 16, .hadamard = 16, .budget = 2, .group = 2};
    const Call call{.kv_heads = 2};
    Random random(9);
    const Problem p = random_problem(random, config, call, 5, RowKind::kNormal);
    const auto q = p.query_rows(config, call);
    const auto k = p.key_rows(config, call);
    const auto v = p.value_rows(config, call);
    const auto selection = [](int32_t a, int32_t b) { return Selection{{a, b}, 2}; };
    const std::vector<Selection> four = {selection(0, 1), selection(1, 2), selection(2, 3), selection(3, 4)};
    const Output per_query = attend_all(config, call, q, k, v, four);
    config.scope = Scope::kKvHead;
    const Output per_kv = attend_all(config, call, q, k, v, {four[0], four[3]});
    for (int64_t h = 0; h < 4; ++h) {
      CHECK(per_query.lse[h] == attend(config, call, q.at(0, h), h, k, v, four[h].chosen()).lse);
      CHECK(per_kv.lse[h] == attend(config, call, q.at(0, h), h, k, v, four[h < 2 ? 0 : 3].chosen()).lse);
    }
  }
}

TEST_SUITE("calibrate") {
  TEST_CASE("points are ascending, symmetric and B-1 many") {
    for (const int buckets : {2, 4, 8, 16}) {
      const std::vector<double> points = lloyd_max_points(buckets);
      REQUIRE(points.size() == static_cast<size_t>(buckets - 1));
      for (size_t i = 0; i < points.size(); ++i)
        CHECK(points[i] == -points[points.size() - 1 - i]);
      CHECK(std::is_sorted(points.begin(), points.end()));
    }
  }

  TEST_CASE("thresholds are per KV head and follow its keys and its group's queries") {
    const Config config{.head_dim = 16, .value_dim = 16, .hadamard = 16, .group = 2};
    // A rotation keeps the norm: constant rows of 2 have an RMS of 2.
    std::vector<float> keys(3 * 2 * 16), queries(1 * 4 * 16);
    for (size_t i = 0; i < keys.size(); ++i)
      keys[i] = i / 16 % 2 == 0 ? 2.0f : 4.0f;
    for (size_t i = 0; i < queries.size(); ++i)
      queries[i] = i / 16 < 2 ? 1.0f : (i / 16 == 2 ? 1.0f : 7.0f);
    const Thresholds t = calibrate(config, Rows<float>(keys, 2, 16), Rows<float>(queries, 4, 16));
    const std::vector<float> want_keys = {-0.9816f * 2, 0, 0.9816f * 2, -0.9816f * 4, 0, 0.9816f * 4};
    const std::vector<float> want_queries = {-0.3f, 0, 0.3f, -0.3f * 5, 0, 0.3f * 5};
    REQUIRE(t.key.size() == 6);
    REQUIRE(t.query.size() == 6);
    for (size_t i = 0; i < 6; ++i) {
      CHECK(t.key[i] == doctest::Approx(want_keys[i]).epsilon(1e-6));
      CHECK(t.query[i] == doctest::Approx(want_queries[i]).epsilon(1e-6));
    }
  }
}

TEST_SUITE("random data") {
  TEST_CASE("the same seed gives the same rows, and each kind is what it says") {
    Random a(42), b(42);
    CHECK(random_rows(a, RowKind::kNormal, 3, 8, Format::kF16) ==
          random_rows(b, RowKind::kNormal, 3, 8, Format::kF16));
    CHECK(Random(0).next() == 0xe220a8397b1dcdafu);  // the published first output of SplitMix64
    double sum = 0, squares = 0;
    for (const float x : random_rows(a, RowKind::kNormal, 200, 100, Format::kBF16)) {
      REQUIRE(round_to(Format::kBF16, x) == x);
      sum += x;
      squares += static_cast<double>(x) * x;
    }
    CHECK(sum / 20000 == doctest::Approx(0).epsilon(0.05));
    CHECK(squares / 20000 == doctest::Approx(1).epsilon(0.05));
    const auto equal = random_rows(a, RowKind::kAllEqual, 5, 4, Format::kF16);
    for (size_t i = 4; i < equal.size(); ++i)
      CHECK(equal[i] == equal[i - 4]);
    const auto special = random_rows(a, RowKind::kSpecial, 100, 8, Format::kF16);
    CHECK(std::any_of(special.begin(), special.end(), [](float x) { return std::isnan(x); }));
    CHECK(std::any_of(special.begin(), special.end(), [](float x) { return x == kInf; }));
    CHECK(std::any_of(special.begin(), special.end(), [](float x) { return x == -kInf; }));
  }

  TEST_CASE("integer problems hit thresholds, halves and ties") {
    for (const Estimator estimator : {Estimator::kDot, Estimator::kManhattan}) {
      const Config config{
          .head_dim = 96, .value_dim = 16, .hadamard = 96, .estimator = estimator, .budget = 16};
      const Call call;
      Random random(2);
      const Problem p = random_problem(random, config, call, 200, RowKind::kInteger);
      int on_threshold = 0;
      for (int64_t t = 0; t < 200; ++t) {
        for (const float y : hadamard(p.key_rows(config, call).at(t, 0), 96)) {
          on_threshold += static_cast<int>(std::count(p.thresholds.key.begin(), p.thresholds.key.end(), y));
        }
      }
      CHECK(on_threshold > 100);
      const auto codes = encode_keys(config, p.key_rows(config, call), p.thresholds.key);
      const auto integers = encode_queries(config, p.query_rows(config, call), p.thresholds.query);
      auto all = scores(config, call, Rows<int32_t>(integers, 1, 96), Rows<uint8_t>(codes, 1, 96));
      std::sort(all.begin(), all.end());
      CHECK(std::unique(all.begin(), all.end()) - all.begin() < 150);  // of 200: many ties
    }
  }
}
