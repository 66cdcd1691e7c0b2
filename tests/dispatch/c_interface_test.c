/* A C99 host: includes nothing but adamas.h, links the shared library, and runs one decode whose answer is
 * known. Every V row holds 2, so that the output is 2 wherever the attention lies. */
#include <adamas/adamas.h>

#include <stdio.h>
#include <string.h>

enum {
  kTokens = 40,
  kHeadDim = 64,
  kKvHeads = 2,
  kGroup = 2,
  kQueryHeads = kKvHeads * kGroup,
  kPage = 16,
  kPages = 3
};

static int failures = 0;

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                     \
    }                                                                 \
  } while (0)

static void check_ok(adamas_status status, const char* call) {
  adamas_error_info error;
  if (status == ADAMAS_OK) return;
  memset(&error, 0, sizeof error);
  error.struct_size = sizeof error;
  adamas_last_error(NULL, &error);
  fprintf(stderr, "%s: %s: %s\n", call, adamas_status_name(status), error.message);
  ++failures;
}
#define OK(call) check_ok((call), #call)

static float key[kPages * kPage * kKvHeads * kHeadDim], value[kPages * kPage * kKvHeads * kHeadDim];
static float query[kQueryHeads * kHeadDim], out[kQueryHeads * kHeadDim], lse[kQueryHeads];

static adamas_cache host_cache(const int32_t* table) {
  adamas_cache cache;
  memset(&cache, 0, sizeof cache);
  cache.key = key;
  cache.value = value;
  cache.key_page_stride = cache.value_page_stride = kPage * kKvHeads * kHeadDim;
  cache.key_token_stride = cache.value_token_stride = kKvHeads * kHeadDim;
  cache.key_head_stride = cache.value_head_stride = kHeadDim;
  cache.table = table;
  cache.table_stride = kPages;
  return cache;
}

static void decode(adamas_context* context, const adamas_kernel* kernel, const adamas_plan* plan) {
  const int32_t table[kPages] = {2, 0, 1};
  const int32_t lengths[1] = {kTokens};
  const float thresholds[kKvHeads * 3] = {-1, 0, 1, -1, 0, 1};
  adamas_kernel_info kernel_info;
  adamas_plan_info plan_info;
  adamas_encode_args encode;
  adamas_call call;
  adamas_counters counted;
  void *codes = NULL, *workspace = NULL, *counters = NULL;
  int i;

  memset(&kernel_info, 0, sizeof kernel_info);
  kernel_info.struct_size = sizeof kernel_info;
  OK(adamas_kernel_get_info(kernel, &kernel_info));
  CHECK(kernel_info.code_bytes >= (uint64_t)kPages * kPage * kKvHeads * kHeadDim / 4);
  memset(&plan_info, 0, sizeof plan_info);
  plan_info.struct_size = sizeof plan_info;
  OK(adamas_plan_get_info(plan, &plan_info));
  CHECK(plan_info.rows == 1);
  OK(adamas_alloc(context, kernel_info.code_bytes, &codes));
  OK(adamas_alloc(context, plan_info.workspace_bytes, &workspace));
  OK(adamas_alloc(context, ADAMAS_COUNTERS_BYTES, &counters));
  OK(adamas_counters_clear(context, counters, NULL));
  if (failures > 0) return;

  for (i = 0; i < kPages * kPage * kKvHeads * kHeadDim; ++i) {
    key[i] = (float)(i * 37 % 11) - 5;
    value[i] = 2;
  }
  for (i = 0; i < kQueryHeads * kHeadDim; ++i)
    query[i] = (float)(i * 53 % 7) - 3;

  memset(&encode, 0, sizeof encode);
  encode.struct_size = sizeof encode;
  encode.cache = host_cache(NULL);
  encode.codes = codes;
  encode.count = kPages * kPage;
  encode.key_thresholds = thresholds;
  OK(adamas_encode(kernel, &encode, NULL));

  memset(&call, 0, sizeof call);
  call.struct_size = sizeof call;
  call.workspace = workspace;
  call.workspace_bytes = plan_info.workspace_bytes;
  call.query = query;
  call.cache = host_cache(table);
  call.codes = codes;
  call.lengths = lengths;
  call.out = out;
  call.lse = lse;
  call.counters = counters;
  OK(adamas_decode(plan, &call, NULL));
  OK(adamas_counters_read(context, counters, &counted, NULL));
  OK(adamas_synchronize(context, NULL));
  for (i = 0; i < kQueryHeads * kHeadDim; ++i)
    CHECK(out[i] > 1.999F && out[i] < 2.001F);
  CHECK(counted.status == 0);
  CHECK(counted.rows == kQueryHeads);
  CHECK(counted.tokens_scanned == kTokens * kKvHeads);
  CHECK(counted.tokens_attended == 8 * kQueryHeads);

  out[0] = -1;
  call.query = NULL;
  CHECK(adamas_decode(plan, &call, NULL) == ADAMAS_INVALID_ARGUMENT);
  CHECK(out[0] == -1);

  OK(adamas_free(context, counters));
  OK(adamas_free(context, workspace));
  OK(adamas_free(context, codes));
}

int main(void) {
  adamas_context_options options;
  adamas_capacity capacity;
  adamas_plan_options plan_options;
  adamas_error_info error;
  adamas_context* context = NULL;
  adamas_kernel* kernel = NULL;
  adamas_plan* plan = NULL;

  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.device = "cpu";
  OK(adamas_context_create(&options, &context));
  memset(&capacity, 0, sizeof capacity);
  capacity.struct_size = sizeof capacity;
  capacity.max_batch = 1;
  capacity.kv_heads = kKvHeads;
  capacity.max_tokens = kTokens;

  CHECK(adamas_prepare(context, "head_dim=64 buckets=3", NULL, &capacity, &kernel) == ADAMAS_INVALID_SPEC);
  CHECK(kernel == NULL);
  memset(&error, 0, sizeof error);
  error.struct_size = sizeof error;
  OK(adamas_last_error(context, &error));
  CHECK(error.status == ADAMAS_INVALID_SPEC);
  CHECK(strcmp(error.field, "buckets") == 0);
  CHECK(strcmp(error.value, "3") == 0);
  CHECK(strstr(error.message, error.rule) != NULL);
  CHECK(error.hint[0] != '\0');

  OK(adamas_prepare(context, "head_dim=64 group=2 budget=8 kv_type=f32", NULL, &capacity, &kernel));
  memset(&plan_options, 0, sizeof plan_options);
  plan_options.struct_size = sizeof plan_options;
  plan_options.batch = 1;
  if (kernel != NULL) OK(adamas_plan_create(kernel, &plan_options, &plan));
  if (plan != NULL) decode(context, kernel, plan);

  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  CHECK(adamas_synchronize(context, NULL) == ADAMAS_OK);
  adamas_context_destroy(context);
  if (failures == 0) puts("ok");
  return failures == 0 ? 0 : 1;
}
