#include <adamas/adamas.hpp>
#include <cstdio>

int main() {
  adamas::Context ctx{"auto"};  // the first GPU that works, else the CPU
  auto kernel = ctx.prepare("head_dim=64 budget=8 kv_type=bf16 cache_form=contiguous",
                            {.max_batch = 1, .kv_heads = 1, .max_tokens = 100});
  auto plan = kernel.plan({.batch = 1});
  auto kv = ctx.upload<uint16_t>(std::vector<uint16_t>(100 * 64, 0x4228));  // K and V of 100 tokens: 42 in bf16
  auto thresholds = ctx.upload<float>(std::vector{-1.0f, 0.0f, 1.0f});      // or what ctx.calibrate says
  auto lengths = ctx.upload<int32_t>(std::vector<int32_t>{100});
  auto codes = ctx.allocate<char>(kernel.info().code_bytes), work = ctx.allocate<char>(plan.info().workspace_bytes);
  auto out = ctx.allocate<uint16_t>(64);
  adamas::Cache cache{.key = kv.data(), .value = kv.data(), .key_token_stride = 64, .value_token_stride = 64};
  kernel.encode({.cache = cache, .codes = codes.data(), .count = 100, .key_thresholds = thresholds.data()});
  plan.decode({.workspace = work.data(), .workspace_bytes = work.size(), .query = kv.data(), .cache = cache,
               .codes = codes.data(), .lengths = lengths.data(), .out = out.data()});
  std::printf("%s says %s\n", ctx.info().device, out.download()[0] == 0x4228 ? "42" : "nonsense");
}
