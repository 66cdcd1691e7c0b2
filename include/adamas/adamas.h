/* adamas.h - the C interface of adamas-jit, and its ABI.
 *
 * Sparse-attention decode (Adamas, arXiv 2510.18413) for exactly the shape a host engine has: kernels are generated
 * as source text, compiled at run time, cached, and launched on the host's own stream.
 *
 *   adamas_context* ctx;
 *   adamas_context_create(&(adamas_context_options){.struct_size = sizeof(adamas_context_options),
 *                                                   .device = "auto"}, &ctx);
 *   adamas_kernel* kernel;                     // the only call that may compile, load or allocate
 *   adamas_prepare(ctx, "head_dim=128 group=4 budget=128", NULL, &capacity, &kernel);
 *   adamas_plan* plan;                         // cheap
 *   adamas_plan_create(kernel, &plan_options, &plan);
 *   adamas_encode(kernel, &new_keys, stream);  // stored keys -> codes
 *   adamas_decode(plan, &call, stream);        // codes -> selection -> exact attention
 *
 * Rules that hold for every call
 * - Structs begin with `struct_size = sizeof(the struct)`; fields added later read as zero for older callers.
 * - "Device memory" is the context's device: GPU memory for "cuda:N", ordinary memory for "cpu".
 * - Strides count elements of the pointed-to type. Tensors' last dimension is dense (stride 1).
 * - Alignment: workspace and counters start at multiples of 16 bytes. On CUDA query, key, value, codes and out do too,
 *   and their strides are multiples of 16 bytes; every other array, and all of them on the CPU, is aligned to its
 *   element.
 * - `stream` is a CUstream (NULL: the default stream); the CPU runs before the call returns and ignores it.
 * - encode, check, rebuild, select, attend, decode, dense, codes_* and counters_* only enqueue: they never compile,
 *   load, allocate, synchronise or read device memory on the host, and may be captured in a CUDA graph. A call that returns an error
 *   has enqueued nothing.
 * - Kernels and plans are immutable and may be shared by threads. A workspace serves one stream at a time.
 * - The caller owns every buffer; handles belong to the library until their destroy call. A context outlives what
 *   was made from it: destroying it while kernels live only drops the caller's reference.
 * - Nothing throws across this boundary, and what a host's callback throws goes no further than the call that made
 *   it. A context used in a child after fork is ADAMAS_INVALID_HANDLE.
 */
#ifndef ADAMAS_ADAMAS_H
#define ADAMAS_ADAMAS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ADAMAS_API __attribute__((visibility("default")))
#else
#define ADAMAS_API
#endif

#ifdef __cplusplus
#define ADAMAS_INIT(value) = value /* C++ callers leave out what they don't need, struct_size included */
extern "C" {
#else
#define ADAMAS_INIT(value)
#endif
#define ADAMAS_ZERO ADAMAS_INIT(0)

/* Of this header. The file VERSION of the source tree says the same: the build checks it. */
#define ADAMAS_VERSION_MAJOR 0
#define ADAMAS_VERSION_MINOR 1
#define ADAMAS_VERSION_PATCH 0

/* Version of the library that runs, "0.1.0"; never null. A host that was built with an older header of the same
 * MAJOR.MINOR works with it (README: ABI). */
ADAMAS_API const char* adamas_version(void);

/* ---- status -------------------------------------------------------------------------------------------- */

typedef enum adamas_status {
  ADAMAS_OK = 0,
  ADAMAS_INVALID_SPEC = 1,     /* a Spec or Tuning that cannot be: unknown key, bad value, broken rule */
  ADAMAS_UNSUPPORTED = 2,      /* a valid Spec that this backend cannot generate */
  ADAMAS_INVALID_ARGUMENT = 3, /* null or misaligned pointer, stride or size too small, batch beyond capacity */
  ADAMAS_UNAVAILABLE = 4,      /* no GPU, no driver, no NVRTC, no CPU compiler: the message says how to get it */
  ADAMAS_COMPILE_FAILED = 5,   /* the compiler refused; the message has its log and the dumped source's path */
  ADAMAS_DEVICE_ERROR = 6,     /* the driver or the device reported a failure */
  ADAMAS_IO_ERROR = 7,         /* a file could not be read or is malformed */
  ADAMAS_OUT_OF_MEMORY = 8,
  ADAMAS_INVALID_HANDLE = 9, /* null, destroyed or foreign handle, or one carried across fork */
  ADAMAS_TIMEOUT = 10,       /* a bounded wait ended; the work goes on */
  ADAMAS_INTERNAL = 11       /* a bug in the library */
} adamas_status;

/* One word for a status ("invalid_spec"); never null. */
ADAMAS_API const char* adamas_status_name(adamas_status status);

/* What the last failed call of this thread said. Strings live until this thread's next failing call. */
typedef struct adamas_error_info {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_error_info));
  adamas_status status ADAMAS_INIT(ADAMAS_OK);
  const char* message ADAMAS_ZERO; /* the whole sentence: field, value, rule, way out */
  const char* field ADAMAS_ZERO; /* the input at fault: a Spec key, an argument, a file */
  const char* value ADAMAS_ZERO;
  const char* rule ADAMAS_ZERO;
  const char* hint ADAMAS_ZERO; /* the way out; may be "" */
} adamas_error_info;

typedef struct adamas_context adamas_context;
typedef struct adamas_kernel adamas_kernel;
typedef struct adamas_plan adamas_plan;
typedef struct adamas_future adamas_future;

/* The last error of this thread on `ctx`; NULL asks for the last error of any call, context creation included. */
ADAMAS_API adamas_status adamas_last_error(const adamas_context* ctx, adamas_error_info* info);

/* ---- context: one device, one cache, one compiler ------------------------------------------------------ */

typedef enum adamas_log_level { ADAMAS_LOG_INFO = 0, ADAMAS_LOG_WARNING = 1 } adamas_log_level;
/* One line without its end. Called by any thread, threads of the library included, and maybe by several at once; must
 * not call the library. */
typedef void (*adamas_log_fn)(void* user, adamas_log_level level, const char* message);

/* A host's own allocator of device memory (the CPU's: ordinary memory), for adamas_alloc. No other call allocates
 * device memory: workspaces, codes and counters are the host's anyway. Called by any thread that calls adamas_alloc
 * and adamas_free, with the CUDA context of that thread as the host left it.
 * @param alignment  of what is returned: 256 on CUDA, 64 on the CPU
 * @return  NULL when there is none: adamas_alloc is ADAMAS_OUT_OF_MEMORY then */
typedef void* (*adamas_allocate_fn)(void* user, uint64_t bytes, uint64_t alignment);
typedef void (*adamas_release_fn)(void* user, void* pointer);

/* What prepare does about a kernel that is in no pack and no cache. */
typedef enum adamas_compile_policy {
  ADAMAS_COMPILE_DEFAULT = 0, /* $ADAMAS_COMPILE: "allow", "deny" or "background"; else allow */
  ADAMAS_COMPILE_ALLOW = 1,   /* compiles it before prepare returns */
  ADAMAS_COMPILE_DENY = 2,    /* fails (ADAMAS_UNAVAILABLE) with the Spec and the command line that would provide it */
  /* makes or loads its dense part and returns; a thread compiles the rest; adamas_refresh hands out the whole */
  ADAMAS_COMPILE_BACKGROUND = 3
} adamas_compile_policy;

/* A host's own parallel-for: calls body(body_arg, i) once for every i < count, on whatever threads and in whatever
 * order, and returns when all these calls have returned. Launches from several threads call it at the same time. It
 * must not throw. body never blocks, and leaves the floating-point environment of its thread as it found it. */
typedef void (*adamas_parallel_body)(void* body_arg, size_t index);
typedef void (*adamas_parallel_for_fn)(void* user, size_t count, adamas_parallel_body body, void* body_arg);

typedef struct adamas_context_options {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_context_options));
  const char* device ADAMAS_ZERO; /* "auto" (the first that works), "cpu", "cuda:N"; NULL = "auto" */
  /* NULL: $ADAMAS_CACHE_DIR, $XDG_CACHE_HOME/adamas, ~/.cache/adamas; "": memory only */
  const char* cache_dir ADAMAS_ZERO;
  /* CPU threads of a launch, 0 = one a core; with parallel_for, how many threads it is likely to use, which only the
   * number of pieces follows from. Results depend on neither. Unused on CUDA */
  int32_t threads ADAMAS_ZERO;
  adamas_log_fn log ADAMAS_ZERO; /* NULL: warnings go to stderr */
  void* log_user ADAMAS_ZERO;
  /* read-only kernel packs, searched before the cache folder: paths with ':' between them. NULL: $ADAMAS_PACKS;
   * "": none */
  const char* packs ADAMAS_ZERO;
  int32_t compile ADAMAS_ZERO; /* adamas_compile_policy */
  /* CPU: every launch goes through it, and the library starts no thread for launches. NULL: threads of the library's
   * own. A launch whose parallel_for breaks its contract is ADAMAS_DEVICE_ERROR, its outputs undefined */
  adamas_parallel_for_fn parallel_for ADAMAS_ZERO;
  void* parallel_for_user ADAMAS_ZERO; /* the first argument of parallel_for */
  /* both, or neither: cudaMalloc's kin, or the C library's. They outlive the context and what was made from it */
  adamas_allocate_fn allocate ADAMAS_ZERO;
  adamas_release_fn release ADAMAS_ZERO;
  void* allocator_user ADAMAS_ZERO; /* their first argument */
  /* tuning files of `adamas tune`: paths with ':' between them, later ones win. NULL: $ADAMAS_TUNING, else tuning.json
   * in the cache folder; "": none. One that cannot be read is a warning */
  const char* tuning ADAMAS_ZERO;
} adamas_context_options;

ADAMAS_API adamas_status adamas_context_create(const adamas_context_options* options, adamas_context** out);
ADAMAS_API void adamas_context_destroy(adamas_context* ctx); /* NULL is fine */

typedef struct adamas_context_info {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_context_info));
  const char* device ADAMAS_ZERO; /* "cpu", "cuda:0" */
  const char* device_name ADAMAS_ZERO; /* the maker's name of it */
  /* what a kernel missing from the cache would be compiled for: "sm_90a", "host" text */
  const char* target ADAMAS_ZERO;
  const char* cache_dir ADAMAS_ZERO; /* "" when kernels are kept in memory only */
  int32_t compile ADAMAS_ZERO; /* adamas_compile_policy, never ADAMAS_COMPILE_DEFAULT */
  int32_t packs ADAMAS_ZERO; /* packs in use */
} adamas_context_info;
ADAMAS_API adamas_status adamas_context_get_info(const adamas_context* ctx, adamas_context_info* info);

/* Where this context's kernels came from; all units are counted, a kernel has 3 or 4. */
typedef struct adamas_cache_counters {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_cache_counters));
  uint64_t compiles ADAMAS_ZERO;
  uint64_t hits_memory ADAMAS_ZERO, hits_pack ADAMAS_ZERO, hits_folder ADAMAS_ZERO;
  uint64_t misses ADAMAS_ZERO; /* look-ups that found nothing, of targets that would only do as well included */
  uint64_t waits ADAMAS_ZERO; /* for another process that compiled the same unit */
  uint64_t wait_timeouts ADAMAS_ZERO; /* of these, given up: compiled here too */
  uint64_t rejected ADAMAS_ZERO; /* binaries that the loader refused */
  uint64_t fallbacks ADAMAS_ZERO; /* kernels handed out dense (ADAMAS_COMPILE_BACKGROUND) */
} adamas_cache_counters;
ADAMAS_API adamas_status adamas_cache_get_counters(const adamas_context* ctx, adamas_cache_counters* counters);

/* ---- prepare: Spec -> loaded kernels ------------------------------------------------------------------- */

/* What launches may grow to. Lengths beyond max_tokens (known only on the device) are clamped and reported. */
typedef struct adamas_capacity {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_capacity));
  int32_t max_batch ADAMAS_ZERO; /* sequences of one call, >= 1 */
  int32_t kv_heads ADAMAS_ZERO; /* K/V heads of the layer, >= 1; query heads = kv_heads * group */
  int64_t max_tokens ADAMAS_ZERO; /* tokens of one sequence, 1 .. 2^30 */
  /* Physical token slots of the cache. 0: max_batch * max_tokens, each sequence rounded up to pages.
   * Forms with pages: rounded up to pages. contiguous: 0 = one row of max_tokens slots a sequence (slot = b *
   * max_tokens + start + position); > 0 = one packed array of that many slots (slot = start + position; `starts`
   * required). */
  int64_t max_slots ADAMAS_ZERO;
} adamas_capacity;

/* Compiles (or finds in the cache), loads and checks the kernels of `spec`.
 * @param spec    "key=value ..." (README: Spec); "" = every default
 * @param tuning  likewise; NULL or "" = a pack's or the target's default. Changes speed and last bits, never selections
 * Errors: INVALID_SPEC, UNSUPPORTED, INVALID_ARGUMENT (capacity), UNAVAILABLE, COMPILE_FAILED, DEVICE_ERROR. */
ADAMAS_API adamas_status adamas_prepare(adamas_context* ctx, const char* spec, const char* tuning,
                                        const adamas_capacity* capacity, adamas_kernel** out);
ADAMAS_API void adamas_kernel_destroy(adamas_kernel* kernel);

/* The same on a thread of its own. Spec and capacity are checked before it returns. */
ADAMAS_API adamas_status adamas_prepare_async(adamas_context* ctx, const char* spec, const char* tuning,
                                              const adamas_capacity* capacity, adamas_future** out);
/* Waits at most timeout_ms (negative: for ever; 0: only looks). ADAMAS_TIMEOUT while it is not done. The kernel is
 * the caller's; a second wait returns a second reference. */
ADAMAS_API adamas_status adamas_future_wait(adamas_future* future, int64_t timeout_ms, adamas_kernel** out);
/* Blocks until the work has ended; the result, if never fetched, is dropped. */
ADAMAS_API void adamas_future_destroy(adamas_future* future);

/* Under ADAMAS_COMPILE_BACKGROUND a kernel may be dense at first. */
typedef enum adamas_kernel_state {
  ADAMAS_KERNEL_COMPLETE = 0,
  /* The rest is being compiled. decode attends to every token, which counters.dense_requested tells, and lists no
   * positions; dense and attend work; encode, select, codes_* and append_slots are ADAMAS_UNAVAILABLE. A plan's
   * workspace_bytes serve dense, too. */
  ADAMAS_KERNEL_DENSE = 1,
  ADAMAS_KERNEL_DENSE_REFRESHABLE = 2, /* likewise, and adamas_refresh has the complete one */
  ADAMAS_KERNEL_DENSE_FAILED = 3       /* likewise, and adamas_refresh says why the compile failed */
} adamas_kernel_state;

/* The complete kernel in place of a dense one, as soon as a thread has compiled it: ADAMAS_TIMEOUT before. Loads, never
 * compiles; the swap happens here and nowhere else. The old kernel, its plans and captured graphs stay valid and
 * dense. Encode the whole cache with the new kernel, and make new plans, before decoding with it. A complete kernel
 * gives another reference to itself.
 * @param stream  a stream that the host might be capturing: refused (ADAMAS_INVALID_ARGUMENT) while it is */
ADAMAS_API adamas_status adamas_refresh(const adamas_kernel* kernel, void* stream, adamas_kernel** out);

typedef struct adamas_kernel_info {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_kernel_info));
  const char* spec ADAMAS_ZERO; /* canonical text, every key */
  const char* tuning ADAMAS_ZERO; /* canonical text; of several in a tuning file that for the capacities */
  const char* target ADAMAS_ZERO; /* what was loaded: "sm_90a", "x86-64-v3" */
  int32_t units ADAMAS_ZERO; /* binaries that make up the kernel */
  int32_t compiles ADAMAS_ZERO; /* of these, compiled by this call; the rest came from the cache or memory */
  double compile_ms ADAMAS_ZERO; /* wall time of the compiles, 0 if none */
  double load_ms ADAMAS_ZERO; /* wall time of everything else: look-up, read, check, load */
  /* names the code layout; codes of equal id and capacity are interchangeable */
  const char* layout_id ADAMAS_ZERO;
  uint64_t code_bytes ADAMAS_ZERO; /* device memory for the codes of max_slots slots and all kv_heads */
  uint32_t code_row_bytes ADAMAS_ZERO; /* bytes of one token's codes of one head in that layout */
  int32_t state ADAMAS_ZERO; /* adamas_kernel_state, at this moment */
} adamas_kernel_info;
ADAMAS_API adamas_status adamas_kernel_get_info(const adamas_kernel* kernel, adamas_kernel_info* info);

/* ---- plan: batch and policy ---------------------------------------------------------------------------- */

typedef struct adamas_plan_options {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_plan_options));
  int32_t batch ADAMAS_ZERO; /* sequences in the call, 1 .. max_batch */
  /* rows that see at most so many tokens attend to all of them; negative: the budget */
  int64_t dense_below ADAMAS_INIT(-1);
  /* tokens that rows are expected to hold, 0 = max_tokens: which Tuning of a tuning file is taken, nothing else */
  int64_t expected_tokens ADAMAS_ZERO;
} adamas_plan_options;

ADAMAS_API adamas_status adamas_plan_create(const adamas_kernel* kernel, const adamas_plan_options* options,
                                            adamas_plan** out);
ADAMAS_API void adamas_plan_destroy(adamas_plan* plan);

typedef struct adamas_plan_info {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_plan_info));
  int32_t rows ADAMAS_ZERO; /* batch * query_rows */
  int32_t selections ADAMAS_ZERO; /* selections a row: query heads, or kv_heads in kv_head scope */
  uint64_t workspace_bytes ADAMAS_ZERO; /* for decode, select and attend; contents need no initialisation */
  uint64_t dense_workspace_bytes ADAMAS_ZERO; /* for dense */
  const char* tuning ADAMAS_ZERO; /* what the plan launches; canonical text, lives as long as the kernel */
} adamas_plan_info;
ADAMAS_API adamas_status adamas_plan_get_info(const adamas_plan* plan, adamas_plan_info* info);

/* ---- the cache, as the host keeps it ------------------------------------------------------------------- */

/* Element [page, token in page, head, i] of K is at key + page*key_page_stride + token*key_token_stride +
 * head*key_head_stride + i; V likewise. A physical slot is page * tokens of a page + token in page.
 *
 * The Spec's cache_form says how positions become pages; index i of a sequence is its start + position:
 *   contiguous   a page is one sequence's row (or, packed, the whole array: then the page strides are unused)
 *   block_table  index i lies in page table[b * table_stride + i / page_size], at token i % page_size
 *   slots        index i lies in slot table[b * table_stride + i]; the page strides are unused
 *   csr          index i lies in page table[indptr[b] + i / page_size], at token i % page_size; table has
 *                table_stride entries in all. A range of indptr that is empty, or not inside the table, is reported
 *                (BAD_TABLE) where a row needs it, and table[0] stands for its pages
 *   pointers     pages as in block_table, by number because codes follow it, but a page begins at
 *                page_addresses[page], and its K key_offset bytes further: `key`, `value` and the page strides are
 *                unused. A NULL page has no tokens: encode skips it, attention leaves it out and reports BAD_TABLE
 * Entries that no position of a sequence needs are never read.
 *
 * kv_type=q8_0 is ggml's: 32 elements are a block of 34 bytes, an f16 scale and then 32 8-bit integers. Its strides
 * count blocks, and a row is head_dim / 32 of them. */
typedef struct adamas_cache {
  const void* key ADAMAS_ZERO;
  const void* value ADAMAS_ZERO;
  int64_t key_page_stride ADAMAS_ZERO, key_token_stride ADAMAS_ZERO, key_head_stride ADAMAS_ZERO;
  int64_t value_page_stride ADAMAS_ZERO, value_token_stride ADAMAS_ZERO, value_head_stride ADAMAS_ZERO;
  /* block_table, slots, pointers: [batch, table_stride]; csr: [table_stride]; device memory */
  const int32_t* table ADAMAS_ZERO;
  /* entries a sequence, >= pages that max_tokens (plus its start) needs; csr: entries in all */
  int64_t table_stride ADAMAS_ZERO;
  const int32_t* indptr ADAMAS_ZERO; /* csr: [batch + 1], where each sequence's entries begin and the last end */
  /* tables=split: pages (slots) of V, laid out as `table`, which is then of K and of the codes; slots mean K's */
  const int32_t* value_table ADAMAS_ZERO;
  /* pointers: [pages] where each page begins, device memory. Addresses are the host's word: only NULL is told from
   * the others. The rule of alignment holds for each */
  const void* const* page_addresses ADAMAS_ZERO;
  int64_t key_offset ADAMAS_ZERO, value_offset ADAMAS_ZERO; /* pointers: bytes from there to the page's K and V */
  /* kv_type=f8e4m3fn: an element is the stored one times its scale. Device memory; scale_stride 0: [1], for the tensor;
   * 1: [kv_heads] */
  const float* key_scale ADAMAS_ZERO;
  const float* value_scale ADAMAS_ZERO;
  int64_t scale_stride ADAMAS_ZERO;
  uint64_t later[4] ADAMAS_INIT({}); /* 0: this struct lies inside others and keeps its size */
} adamas_cache;

/* ---- encode: stored keys -> codes ---------------------------------------------------------------------- */

/* Reads K as stored at each slot and writes the slot's codes. Append: `slots` lists the new tokens' slots. Bulk
 * (prefill, prefix hit, rewritten cache): `slots` NULL encodes first_slot .. first_slot + count - 1. */
typedef struct adamas_encode_args {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_encode_args));
  adamas_cache cache ADAMAS_INIT({}); /* what says where K is, and its scale; V and tables are not read */
  void* codes ADAMAS_ZERO; /* [code_bytes], device memory */
  /* [count], device memory; a negative slot is inert, one beyond max_slots too (and reported in
   * `counters`) */
  const int32_t* slots ADAMAS_ZERO;
  int64_t first_slot ADAMAS_ZERO; /* when slots is NULL */
  int64_t count ADAMAS_ZERO;
  const float* key_thresholds ADAMAS_ZERO; /* [kv_heads, buckets - 1] ascending, device memory */
  void* counters ADAMAS_ZERO; /* optional, see below */
} adamas_encode_args;
ADAMAS_API adamas_status adamas_encode(const adamas_kernel* kernel, const adamas_encode_args* args, void* stream);

/* ---- check, rebuild: are the codes those of the keys? -------------------------------------------------- */

/* Codes that fall out of step with K (a page that was rewritten, a prefix that was restored without them) spoil text
 * without a word. check makes the codes of slots again from K and compares; rebuild also writes those that differ.
 * Slots are named as for encode; those that encode skips are not checked. At the speed of a bulk encode or less: for
 * samples, tests and repairs, not for every step. */
typedef struct adamas_check_args {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_check_args));
  adamas_cache cache ADAMAS_INIT({}); /* what says where K is, and its scale; V and tables are not read */
  void* codes ADAMAS_ZERO; /* [code_bytes], device memory; written by rebuild alone */
  const int32_t* slots ADAMAS_ZERO; /* [count], device memory, each at most once; NULL: first_slot.. */
  int64_t first_slot ADAMAS_ZERO; /* when slots is NULL */
  int64_t count ADAMAS_ZERO;
  const float* key_thresholds ADAMAS_ZERO; /* [kv_heads, buckets - 1], those that encode was given */
  /* out: [count, kv_heads], device memory, 1 where codes are (rebuild: were) out of step, else 0; or NULL */
  uint8_t* stale ADAMAS_ZERO;
  void* counters ADAMAS_ZERO; /* adds to tokens_checked, tokens_stale; may be NULL where `stale` is not, and in rebuild */
} adamas_check_args;
ADAMAS_API adamas_status adamas_check(const adamas_kernel* kernel, const adamas_check_args* args, void* stream);
ADAMAS_API adamas_status adamas_rebuild(const adamas_kernel* kernel, const adamas_check_args* args, void* stream);

/* Canonical codes: one byte an element, [count, kv_heads, head_dim], of first_slot .. first_slot + count - 1. */
typedef struct adamas_codes_args {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_codes_args));
  void* codes ADAMAS_ZERO; /* [code_bytes], device memory */
  /* [count, kv_heads, head_dim], device memory; import reads code = byte mod buckets */
  uint8_t* bytes ADAMAS_ZERO;
  int64_t first_slot ADAMAS_ZERO;
  int64_t count ADAMAS_ZERO;
} adamas_codes_args;
ADAMAS_API adamas_status adamas_codes_export(const adamas_kernel* kernel, const adamas_codes_args* args, void* stream);
ADAMAS_API adamas_status adamas_codes_import(const adamas_kernel* kernel, const adamas_codes_args* args, void* stream);

/* ---- select, attend, decode, dense --------------------------------------------------------------------- */

/* One argument block for the four; each reads what it needs and ignores the rest. Row r of the call is query row
 * r % query_rows of sequence r / query_rows; query head h belongs to K/V head h / group. All pointers device memory.
 *
 *            reads                                                      writes
 *  select    query codes lengths [query_thresholds]                     positions counts [scores] [query_codes]
 *  attend    query cache lengths positions counts                       out [lse]
 *  decode    query codes cache lengths [query_thresholds]               out [lse] [positions counts]
 *            [append_slots key_thresholds]                              [codes]
 *  dense     query cache lengths                                        out [lse]
 */
typedef struct adamas_call {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_call));
  void* workspace ADAMAS_ZERO; /* >= the plan's bytes */
  uint64_t workspace_bytes ADAMAS_ZERO;

  const void* query ADAMAS_ZERO; /* [rows, query heads, head_dim] of q_type */
  int64_t query_row_stride ADAMAS_ZERO, query_head_stride ADAMAS_ZERO; /* 0, 0: dense */
  adamas_cache cache ADAMAS_INIT({});
  const void* codes ADAMAS_ZERO; /* written where append_slots says */
  /* [batch] tokens in the cache, the query rows' own included; 0 = padded, inert row */
  const int32_t* lengths ADAMAS_ZERO;
  /* [batch] or NULL (0): index of position 0 in the sequence's row, table or array */
  const int32_t* starts ADAMAS_ZERO;
  const int32_t* row_budgets ADAMAS_ZERO; /* [rows] or NULL: a budget below the Spec's for each row */
  const float* query_thresholds ADAMAS_ZERO; /* [kv_heads, buckets - 1], estimator=manhattan only */
  float scale ADAMAS_ZERO; /* logit scale; 0 = 1/sqrt(head_dim) */
  float soft_cap ADAMAS_ZERO; /* soft_cap=on */
  int32_t window ADAMAS_ZERO; /* window=on: a row sees positions > own - window; >= 1 */
  const float* sink_logits ADAMAS_ZERO; /* sink_logits=on: [query heads] */

  void* out ADAMAS_ZERO; /* [rows, query heads, value_dim] of out_type; inert rows are zero */
  int64_t out_row_stride ADAMAS_ZERO, out_head_stride ADAMAS_ZERO; /* 0, 0: dense */
  /* lse=on: [rows, query heads] natural log, sink logit left out, -inf for an empty row; NULL: not
   * wanted */
  float* lse ADAMAS_ZERO;

  /* [rows, selections, budget] ascending, the rest -1; decode: NULL = not wanted */
  int32_t* positions ADAMAS_ZERO;
  int32_t* counts ADAMAS_ZERO; /* [rows, selections]; decode: NULL = not wanted */
  /* select, decode: write physical slots in place of positions (attend reads positions) */
  int32_t positions_are_slots ADAMAS_ZERO;
  /* select: [rows, selections, max_tokens]; or NULL. INT32_MIN where the row does not see, not written
   * beyond the sequence's length */
  int32_t* scores ADAMAS_ZERO;
  /* select: [rows, query heads, head_dim] query integers (dot) or codes (manhattan); or NULL */
  int8_t* query_codes ADAMAS_ZERO;
  void* counters ADAMAS_ZERO; /* optional, see below */
  /* decode: NULL, or [rows] slots of the rows' own tokens, negative = none: their codes are made first, as by encode */
  const int32_t* append_slots ADAMAS_ZERO;
  const float* key_thresholds ADAMAS_ZERO; /* [kv_heads, buckets - 1], where append_slots is given */
} adamas_call;

ADAMAS_API adamas_status adamas_select(const adamas_plan* plan, const adamas_call* call, void* stream);
ADAMAS_API adamas_status adamas_attend(const adamas_plan* plan, const adamas_call* call, void* stream);
ADAMAS_API adamas_status adamas_decode(const adamas_plan* plan, const adamas_call* call, void* stream);
ADAMAS_API adamas_status adamas_dense(const adamas_plan* plan, const adamas_call* call, void* stream);

/* ---- counters: what the kernels really did, under graph replay too ------------------------------------- */

enum { /* bits of adamas_counters.status; they stay until cleared */
  ADAMAS_STATUS_LENGTH_CLAMPED = 1, /* a length was beyond max_tokens (or negative) */
  ADAMAS_STATUS_BAD_TABLE = 2,      /* a page or start outside the cache, clamped; a page at no address, left out */
  ADAMAS_STATUS_BAD_SLOT = 4,       /* encode: a slot beyond max_slots; it was skipped */
  ADAMAS_STATUS_BAD_POSITION = 8    /* attend: a position the row does not see; it was skipped */
};

/* A block of device memory that the host provides (ADAMAS_COUNTERS_BYTES, aligned to 16), cleared once with
 * adamas_counters_clear, and may pass to any call. Kernels add to it atomically.
 *
 * Proof that the sparse path ran: rows > dense_short + dense_requested + dense_background, and tokens_attended far below
 * the tokens in the cache. Why rows were dense: short ones are dense_short; layers that the host runs with adamas_dense
 * are dense_requested; decodes of a kernel whose state is still dense (ADAMAS_COMPILE_BACKGROUND) are
 * dense_background. */
typedef struct adamas_counters {
  uint32_t status ADAMAS_ZERO; /* ADAMAS_STATUS_* */
  uint32_t reserved ADAMAS_ZERO;
  uint64_t rows ADAMAS_ZERO; /* query rows x query heads answered, inert ones left out */
  uint64_t tokens_scanned ADAMAS_ZERO; /* codes scored, a K/V head's group counted once */
  uint64_t tokens_attended ADAMAS_ZERO; /* K/V rows attended, counted for each query head */
  /* row-heads attended densely because the row sees <= dense_below tokens */
  uint64_t dense_short ADAMAS_ZERO;
  uint64_t dense_requested ADAMAS_ZERO; /* row-heads of dense calls */
  uint64_t clamped_rows ADAMAS_ZERO; /* row-heads whose length was clamped */
  uint64_t tokens_encoded ADAMAS_ZERO; /* token-heads written by encode */
  uint64_t tokens_checked ADAMAS_ZERO; /* token-heads that check or rebuild compared */
  uint64_t tokens_stale ADAMAS_ZERO; /* of these, out of step; rebuild has mended its own */
  uint64_t steps ADAMAS_ZERO; /* calls of select, attend, decode and dense that the device has carried out */
  /* row-heads that decode attended densely because its kernel is not compiled yet */
  uint64_t dense_background ADAMAS_ZERO;
  uint64_t later[20] ADAMAS_INIT({}); /* 0: the block keeps its size when counters are added */
} adamas_counters;
#define ADAMAS_COUNTERS_BYTES sizeof(adamas_counters)

ADAMAS_API adamas_status adamas_counters_clear(adamas_context* ctx, void* counters, void* stream);
/* Enqueues a copy into host memory; it is there once the stream has passed this point. */
ADAMAS_API adamas_status adamas_counters_read(adamas_context* ctx, const void* counters, adamas_counters* host,
                                              void* stream);

/* ---- calibrate: samples -> thresholds (host memory, any context) --------------------------------------- */

/* Default thresholds of one layer from sample keys and queries after RoPE (algorithm: Thresholds). Host memory. */
typedef struct adamas_calibrate_args {
  size_t struct_size ADAMAS_INIT(sizeof(adamas_calibrate_args));
  const void* keys ADAMAS_ZERO; /* [key_count, kv_heads, head_dim] of kv_type, dense */
  /* [query_count, kv_heads * group, head_dim] of q_type, dense; NULL with estimator=dot */
  const void* queries ADAMAS_ZERO;
  int64_t key_count ADAMAS_ZERO, query_count ADAMAS_ZERO;
  int32_t kv_heads ADAMAS_ZERO;
  float* key_thresholds ADAMAS_ZERO; /* out: [kv_heads, buckets - 1] */
  float* query_thresholds ADAMAS_ZERO; /* out: [kv_heads, buckets - 1]; NULL = not wanted */
} adamas_calibrate_args;
ADAMAS_API adamas_status adamas_calibrate(adamas_context* ctx, const char* spec, const adamas_calibrate_args* args);

/* ---- device memory, for hosts and tools that have no allocator of their own ---------------------------- */

ADAMAS_API adamas_status adamas_alloc(adamas_context* ctx, uint64_t bytes, void** out);
ADAMAS_API adamas_status adamas_free(adamas_context* ctx, void* pointer);
typedef enum adamas_copy_kind { ADAMAS_HOST_TO_DEVICE = 0, ADAMAS_DEVICE_TO_HOST = 1 } adamas_copy_kind;
/* Blocks until the copy, and everything enqueued before it on the stream, is done. */
ADAMAS_API adamas_status adamas_copy(adamas_context* ctx, void* to, const void* from, uint64_t bytes,
                                     adamas_copy_kind kind, void* stream);
ADAMAS_API adamas_status adamas_synchronize(adamas_context* ctx, void* stream);

#ifdef __cplusplus
}
#endif
#endif /* ADAMAS_ADAMAS_H */
