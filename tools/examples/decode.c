/* A host in C: one sequence in a contiguous cache, encoded once, then one sparse decode step, and the
 * counters that prove it. cc decode.c $(pkg-config --cflags --libs adamas) */
#include <adamas/adamas.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kTokens = 4000, kHeads = 2, kGroup = 4, kDim = 64, kRow = kHeads * kDim };

static adamas_context* ctx;
static void* held[16]; /* device memory, to be given back */
static int holds;

static void check(adamas_status status) {
  adamas_error_info error = {.struct_size = sizeof error};
  if (status == ADAMAS_OK) return;
  adamas_last_error(NULL, &error);
  fprintf(stderr, "%s: %s\n", adamas_status_name(status), error.message);
  exit(1);
}

/* Device memory with `bytes` of `from` in it, if that is not NULL. */
static void* device(const void* from, uint64_t bytes) {
  check(adamas_alloc(ctx, bytes, &held[holds]));
  if (from != NULL) check(adamas_copy(ctx, held[holds], from, bytes, ADAMAS_HOST_TO_DEVICE, NULL));
  return held[holds++];
}

/* Device memory with numbers in -1..1 as bf16, which is the upper half of a float. */
static void* some_numbers(size_t count) {
  uint16_t* values = malloc(count * sizeof *values);
  for (size_t i = 0; i < count; ++i) {
    const float value = (float)rand() / (float)RAND_MAX * 2 - 1;
    memcpy(&values[i], (const char*)&value + 2, 2);
  }
  void* memory = device(values, count * sizeof *values);
  free(values);
  return memory;
}

int main(void) {
  const float thresholds[] = {-0.57f, 0, 0.57f, -0.57f, 0, 0.57f}; /* adamas_calibrate makes better ones */
  const int32_t length = kTokens;
  adamas_kernel* kernel;
  adamas_plan* plan;
  adamas_context_options options = {.struct_size = sizeof options, .device = "auto"};
  check(adamas_context_create(&options, &ctx));
  adamas_capacity capacity = {sizeof capacity, .max_batch = 1, .kv_heads = kHeads, .max_tokens = kTokens};
  const char* spec = "head_dim=64 group=4 budget=128 kv_type=bf16 cache_form=contiguous";
  check(adamas_prepare(ctx, spec, NULL, &capacity, &kernel));
  adamas_plan_options step = {.struct_size = sizeof step, .batch = 1, .dense_below = -1};
  check(adamas_plan_create(kernel, &step, &plan));

  adamas_kernel_info made = {.struct_size = sizeof made};
  adamas_plan_info sizes = {.struct_size = sizeof sizes};
  check(adamas_kernel_get_info(kernel, &made));
  check(adamas_plan_get_info(plan, &sizes));
  adamas_cache cache = {.key = some_numbers(kTokens * kRow), .value = some_numbers(kTokens * kRow)};
  cache.key_token_stride = cache.value_token_stride = kRow;
  cache.key_head_stride = cache.value_head_stride = kDim;

  adamas_encode_args prefill = {.struct_size = sizeof prefill, .cache = cache, .count = kTokens};
  prefill.codes = device(NULL, made.code_bytes);
  prefill.key_thresholds = device(thresholds, sizeof thresholds);
  check(adamas_encode(kernel, &prefill, NULL));

  adamas_call call = {.struct_size = sizeof call, .cache = cache, .codes = prefill.codes};
  call.workspace = device(NULL, call.workspace_bytes = sizes.workspace_bytes);
  call.query = some_numbers(kGroup * kRow);
  call.lengths = device(&length, sizeof length);
  call.out = device(NULL, kGroup * kRow * sizeof(uint16_t));
  call.counters = device(NULL, ADAMAS_COUNTERS_BYTES);
  check(adamas_counters_clear(ctx, call.counters, NULL));
  check(adamas_decode(plan, &call, NULL));

  adamas_counters counted;
  check(adamas_counters_read(ctx, call.counters, &counted, NULL));
  check(adamas_synchronize(ctx, NULL)); /* now it is there */
  printf("%" PRIu64 " rows, %" PRIu64 " dense; ", counted.rows,
         counted.dense_short + counted.dense_requested + counted.dense_background);
  printf("each scanned %" PRIu64 " tokens and attended to %" PRIu64 "\n", counted.tokens_scanned / kHeads,
         counted.tokens_attended / counted.rows);
  while (holds > 0)
    check(adamas_free(ctx, held[--holds]));
  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(ctx);
  return 0;
}
