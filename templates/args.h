// The argument block of every generated kernel: one definition for the host, CUDA and CPU code.
//
// Plain data with fixed layout (64-bit pointers and integers first, then 32-bit): the generated source asserts the
// size that the host saw. Strides count elements, code strides bytes. Everything that may change between replays of a
// captured graph lives behind a pointer; what is here by value is fixed by the plan.
#pragma once

namespace adamas_abi {

typedef long long i64;

/// Layout of adamas_counters in adamas.h (the runtime asserts that they agree).
struct Counters {
  unsigned int status;
  unsigned int reserved;
  unsigned long long rows, tokens_scanned, tokens_attended, dense_short, dense_requested, clamped_rows, tokens_encoded;
  unsigned long long tokens_checked, tokens_stale, steps, dense_background;
  unsigned long long later[20];  // hosts have allocated them: room for counters to come
};

enum StatusBit { kLengthClamped = 1, kBadTable = 2, kBadSlot = 4, kBadPosition = 8 };

struct Args {
  // K/V cache. Element [page, token, head, i] = base + page*page_stride + token*token_stride + head*head_stride + i.
  const void* keys;
  const void* values;
  i64 key_page_stride, key_token_stride, key_head_stride;
  i64 value_page_stride, value_token_stride, value_head_stride;
  // Pages of the sequences. block_table, slots: [batch, table_stride]. csr: [table_stride] in all, those of sequence b
  // from indptr[b] to indptr[b + 1] - 1.
  const int* table;
  i64 table_stride;
  const int* indptr;  // csr: [batch + 1]
  // pointers: where each page begins, 0 = nowhere, and how many bytes further its K and V
  const unsigned long long* page_addresses;  // [pages]
  i64 key_offset, value_offset;
  const int* value_table;  // tables of their own for K and V: as `table`, which is then of K and of the codes

  // f8e4m3fn: an element of head h is the stored one times scale[h * scale_stride] (0: one for the tensor).
  const float* key_scale;
  const float* value_scale;
  i64 scale_stride;

  // Geometry of the slots. Slot s lies in page s / page_tokens at token s % page_tokens; page_tokens is the Spec's
  // page_size where there are tables (1 for slots), the tokens of one sequence row (or of the whole packed array) for
  // contiguous.
  i64 page_tokens;
  i64 pages;           // pages that exist; page indices are clamped below it
  i64 sequence_slots;  // contiguous: slots between sequences' rows; 0 = packed
  i64 max_tokens;      // lengths are clamped to it

  // Codes. Byte address of a (page, head) block = codes + page*code_page_stride + head*code_head_stride; inside it the
  // backend's layout rules (planes are code_plane_stride apart on CUDA; unused on the CPU).
  unsigned char* codes;
  i64 code_page_stride, code_head_stride, code_plane_stride;

  // Rows of the call: row r is query row r % query_rows of sequence r / query_rows.
  const void* query;
  i64 query_row_stride, query_head_stride;
  void* out;
  i64 out_row_stride, out_head_stride;
  float* lse;                     // [rows, query heads] or null
  const int* lengths;             // [batch]
  const int* starts;              // [batch] or null
  const int* row_budgets;         // [rows] or null
  const float* key_thresholds;    // [kv_heads, buckets-1]
  const float* query_thresholds;  // [kv_heads, buckets-1]
  const float* sink_logits;       // [query heads] or null

  // Selection. positions [rows, selections, budget], counts [rows, selections]: never null where a stage writes or
  // reads them (the runtime passes workspace when the caller wants none). Null counts tell attend that decode does the
  // lists, and only the chunks of rows that attend to more are wanted.
  int* positions;
  int* counts;
  int* out_positions;        // the caller's copy (positions, or slots when write_slots), or null
  int* out_counts;           // or null
  int* out_scores;           // [rows, selections, max_tokens] or null
  signed char* query_codes;  // [rows, query heads, head_dim] or null

  // Workspace, laid out by the plan.
  unsigned char* prepared;  // [rows, query heads, prepared_bytes]: the query as the scan wants it
  unsigned char* keys_of_scores;  // [rows, selections, score_stride] order keys, 2 or 4 bytes each; CPU: what is kept
  i64 score_stride;               // order keys a selection, a multiple of 64
  float* partial;                 // [rows, query heads, chunks, value_dim + 2]: output sum, then max and sum

  // encode, codes_export, codes_import, check
  const int* slots;  // [count] or null: first_slot + i
  i64 first_slot, count;
  unsigned char* bytes;  // canonical codes [count, kv_heads, head_dim]; check: what is stale [count, kv_heads], or null

  Counters* counters;  // or null
  i64 dense_below;     // rows that see at most so many tokens attend to all

  int batch, kv_heads;
  int chunks;      // chunks that `partial` has room for, per row and query head; decode: that a block has room for
  int all_tokens;  // every row attends to all it sees: 1 as the host asked for it, 2 for want of compiled kernels
  union {
    int write_slots;  // select, decode: slots in place of positions
    int mend;         // check: write the codes that are out of step
  };
  int ring_stages;      // decode: pieces of codes that each warp has room for: 1, 2 or 4
  int smallest_part;    // decode: blocks of a cluster that may answer a short row without the others
  int inbox_words;      // decode: of each selection, for what a cluster's blocks send each other
  union {
    int skip_short_rows;  // stages: nobody asked for the lists of rows that attend to all, they need not be made
    int short_chunks;     // decode: chunks that `partial` has of rows that attend to all, where that is more than a list
  };
  int window;
  float scale, soft_cap;
};

}  // namespace adamas_abi
