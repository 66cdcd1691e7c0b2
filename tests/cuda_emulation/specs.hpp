// The Specs whose CUDA source the emulation compiles for the CPU. Small budgets and blocks keep it quick;
// between them they reach every branch of the templates: each family of Hadamard sizes, code widths, both
// estimators and scopes, 16-bit and 32-bit order keys and scores on chip, one and several rounds of four
// query heads, every cache form and type, columns of bits and of bytes. One is too large for the decode unit.
#pragma once

namespace adamas::cuda_emulation {

struct EmulatedSpec {
  const char* spec;
  const char* tuning;
};

inline constexpr EmulatedSpec kSpecs[] = {
    {"budget=40 sink=2 recent=3", ""},
    {"head_dim=80 value_dim=48 buckets=8 group=3 budget=16 kv_type=bf16 cache_form=slots",
     "scan_tile=64 chunk=32 dense_chunk=16 threads=64 decode_threads=64"},
    {"head_dim=112 estimator=manhattan group=2 scope=kv_head budget=45 query_rows=3 cache_form=contiguous "
     "q_type=f32",
     "scan_tile=128 chunk=32 dense_chunk=8 threads=32 decode_threads=64"},
    {"head_dim=96 value_dim=64 buckets=16 query_bits=8 group=5 budget=37 sink=3 recent=4 page_size=48 "
     "out_type=f32 soft_cap=on window=on sink_logits=on",
     "scan_tile=64 chunk=32 dense_chunk=64 threads=96 decode_threads=64"},
    {"head_dim=448 value_dim=512 buckets=16 group=2 estimator=manhattan budget=10 cache_form=contiguous",
     "scan_tile=64 chunk=32 dense_chunk=16 threads=64 decode_threads=64"},
    {"head_dim=256 hadamard=64 buckets=2 estimator=manhattan query_rows=2 budget=64 sink=4 page_size=64 "
     "window=on out_type=bf16 lse=off",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=128 decode_threads=128"},
    {"head_dim=16 value_dim=240 query_bits=3 group=9 scope=kv_head budget=33 page_size=7",
     "scan_tile=64 chunk=32 dense_chunk=24 threads=64 decode_threads=64"},
    {"head_dim=64 group=8 budget=72 sink=1 query_bits=5 cache_form=csr page_size=16",
     "scan_tile=64 chunk=64 dense_chunk=64 threads=64 decode_threads=64"},
    {"head_dim=64 value_dim=16 group=2 budget=129 buckets=8 estimator=manhattan cache_form=contiguous "
     "out_type=f32",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"head_dim=48 group=9 budget=24 query_bits=6 cache_form=csr page_size=5 tables=split",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"head_dim=64 value_dim=80 group=2 budget=40 cache_form=pointers page_size=9",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"kv_type=f8e4m3fn group=3 budget=40 page_size=32",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"head_dim=80 value_dim=48 kv_type=f8e4m3fn buckets=8 group=5 scope=kv_head budget=20 "
     "cache_form=contiguous "
     "q_type=f16 out_type=f32",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"group=4 budget=48 cache_form=pointers page_size=32 tables=split",
     "scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=128"},
    {"head_dim=80 group=6 budget=40 buckets=8 query_bits=8 page_size=16",
     "scan=bytes scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"head_dim=32 value_dim=64 group=3 budget=24 estimator=manhattan cache_form=slots",
     "scan=bytes scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
    {"head_dim=64 group=5 scope=kv_head budget=40 buckets=16 query_bits=3 cache_form=contiguous",
     "scan=bytes scan_tile=64 chunk=32 dense_chunk=32 threads=64 decode_threads=64"},
};

}  // namespace adamas::cuda_emulation
