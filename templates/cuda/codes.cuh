// Codes in memory: [page][kv_head][plane][token][word]. Bit e % 32 of word e / 32 of plane k is bit k of the
// code of element e; bits beyond head_dim are 0. A plane of a page is contiguous, so neighbouring tokens load
// together.
#pragma once

#include "templates/cuda/place.cuh"

namespace adamas_cuda {

/// First plane's words of a token.
__device__ __forceinline__ unsigned* code_words(const Args& args, int kv_head, Place place) {
  unsigned char* block =
      args.codes + place.page * args.code_page_stride + cache_head(kv_head) * args.code_head_stride;
  return reinterpret_cast<unsigned*>(block) + static_cast<i64>(place.token) * kWords;
}

/// The same token's words of another plane.
template <class Word>
__device__ __forceinline__ Word* plane_of(const Args& args, Word* words, int plane) {
  return words + plane * (args.code_plane_stride / static_cast<i64>(sizeof(Word)));
}

/// kWordsAtOnce words of every plane of one token, from word `from` on, in the widest loads that the row
/// allows.
__device__ __forceinline__ void load_codes(const Args& args, int kv_head, Place place, int from,
                                           unsigned (&codes)[kPlanes][kWordsAtOnce]) {
  const unsigned* first = code_words(args, kv_head, place) + from;
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
    const unsigned* words = plane_of(args, first, plane);
    if constexpr (kWords % 4 == 0 && kWordsAtOnce % 4 == 0) {
#pragma unroll
      for (int w = 0; w < kWordsAtOnce; w += 4) {
        const uint4 four = __ldg(reinterpret_cast<const uint4*>(words + w));
        codes[plane][w] = four.x;
        codes[plane][w + 1] = four.y;
        codes[plane][w + 2] = four.z;
        codes[plane][w + 3] = four.w;
      }
    } else if constexpr (kWords % 2 == 0 && kWordsAtOnce % 2 == 0) {
#pragma unroll
      for (int w = 0; w < kWordsAtOnce; w += 2) {
        const uint2 two = __ldg(reinterpret_cast<const uint2*>(words + w));
        codes[plane][w] = two.x;
        codes[plane][w + 1] = two.y;
      }
    } else {
#pragma unroll
      for (int w = 0; w < kWordsAtOnce; ++w) {
        codes[plane][w] = __ldg(words + w);
      }
    }
  }
}

/// Bit `bit` of each element's value, as words: lane w gets word w, lanes from kWords on get 0.
/// @param values  element 32 j + lane in register j
__device__ __forceinline__ unsigned plane_words(const unsigned (&values)[kWords], int bit) {
  unsigned mine = 0;
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    const unsigned word = __ballot_sync(kAllLanes, (values[w] >> bit & 1u) != 0);
    if (lane_index() == w) mine = word;
  }
  return mine;
}

/// Stores one token's codes, held by a warp as in plane_words.
/// @param first  code_words of the token
/// @param plane_stride  bytes
__device__ __forceinline__ void store_codes(unsigned* first, i64 plane_stride,
                                            const unsigned (&codes)[kWords]) {
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
    const unsigned word = plane_words(codes, plane);
    unsigned* const words = first + plane * (plane_stride / static_cast<i64>(sizeof(unsigned)));
    if (lane_index() < kWords) words[lane_index()] = word;
  }
}
__device__ __forceinline__ void store_codes(const Args& args, int kv_head, Place place,
                                            const unsigned (&codes)[kWords]) {
  store_codes(code_words(args, kv_head, place), args.code_plane_stride, codes);
}

/// Whether register j of this lane holds an element of the vector and no padding.
__device__ __forceinline__ bool holds_element(int j) { return j * kWarp + lane_index() < kHeadDim; }

/// Codes of a rotated vector; padding gets 0.
__device__ __forceinline__ void bucketize(const float (&rotated)[kWords],
                                          const float (&thresholds)[kBuckets - 1],
                                          unsigned (&codes)[kWords]) {
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    codes[j] = holds_element(j) ? bucket_of(rotated[j], thresholds) : 0;
  }
}

/// The thresholds of one K/V head.
__device__ __forceinline__ void load_thresholds(const float* table, int kv_head,
                                                float (&thresholds)[kBuckets - 1]) {
#pragma unroll
  for (int t = 0; t < kBuckets - 1; ++t) {
    thresholds[t] = table[cache_head(kv_head) * (kBuckets - 1) + t];
  }
}

/// A stored key, padding 0; all 0 for one that does not exist.
__device__ __forceinline__ void load_key(const RowInMemory& key, bool exists, float (&x)[kWords]) {
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    const bool wanted = exists && holds_element(j);
    x[j] = wanted ? load_element<kKvType>(key.array, key.first + j * kWarp + lane_index()) : 0.0f;
  }
}

/// Codes of a key, as it is stored, which is rotated in place. By a warp.
/// @param factor  of a cache with scales
/// @param scratch  of this warp, if rotate needs it
__device__ __forceinline__ void codes_of_key(float (&x)[kWords], float factor,
                                             const float (&thresholds)[kBuckets - 1], float* scratch,
                                             unsigned (&codes)[kWords]) {
  if constexpr (kScaled) {
#pragma unroll
    for (float& element : x) {
      element = __fmul_rn(element, factor);
    }
  }
  rotate(x, scratch);
  bucketize(x, thresholds, codes);
}

}  // namespace adamas_cuda
