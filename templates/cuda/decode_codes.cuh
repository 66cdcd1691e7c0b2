// The codes of the decode kernel on their way from memory to registers: a ring of pieces in shared memory, a
// ring a warp, filled by copies that nobody waits for until their piece is scored. In the ring a piece lies
// in units of 16 bytes, as the rows that load_pieces takes, shuffled so that neither the copies nor the loads
// meet in a bank.
#pragma once

#include "templates/cuda/codes.cuh"
#include "templates/cuda/decode_layout.cuh"
#include "templates/cuda/tensor_core.cuh"

namespace adamas_cuda {

constexpr int kUnitBytes = 16;
constexpr int kRowBytes = kWords * 4;  ///< of a token and plane
/// The same in the ring: 2 or 4 tokens share a unit, or a token has whole ones, whose last words may be
/// anything: no column has a bit there.
constexpr int kRingRowBytes =
    kWords <= 2 ? kRowBytes : (kRowBytes + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
constexpr int kTokensPerUnit = kRingRowBytes < kUnitBytes ? kUnitBytes / kRingRowBytes : 1;
constexpr int kPlaneBytes = kPiece * kRingRowBytes;
static_assert(kPlanes * kPlaneBytes == kPieceBytes, "the generator and the template disagree about a piece");

/// Tokens of a piece that a lane scores, neighbours: those of lane 4 r + p begin at r * kLaneTokens.
constexpr int kLaneRows = 8;
constexpr int kLaneTokens = kPiece / kLaneRows;
constexpr int kLaneUnits = kPlaneBytes / kUnitBytes / kLaneRows;
static_assert(kTokensPerUnit == 1 || kLaneTokens % (2 * kTokensPerUnit) == 0, "tokens come in pairs");

// A copy never crosses a page, nor a row that the ring lengthens.
constexpr int kRunBytes = kRingRowBytes == kRowBytes && kPaged ? kPageSize * kRowBytes : kRowBytes;
constexpr int kCopyBytes = kRunBytes % 16 == 0 ? 16 : kRunBytes % 8 == 0 ? 8 : 4;
constexpr int kCopiesOfPlane = kPiece * kRowBytes / kCopyBytes;
constexpr int kCopiesOfLane = (kCopiesOfPlane + kWarp - 1) / kWarp;
constexpr bool kPieceInPage = kPaged && kPageSize % kPiece == 0;  ///< slices begin at multiples of kPiece

/// Where byte `byte` of a plane of a piece lies in the ring.
__device__ __forceinline__ int ring_offset(int byte) {
  const int unit = byte / kUnitBytes;
  return (unit ^ unit / 8 % 8) * kUnitBytes + byte % kUnitBytes;
}

/// Byte of a plane's rows in memory that copy `i` of this lane begins with.
__device__ __forceinline__ int byte_of_copy(int i) { return (i * kWarp + lane_index()) * kCopyBytes; }

/// Token of a piece that copy `i` of this lane begins with; kPiece or more where it has no such copy.
__device__ __forceinline__ int token_of_copy(int i) { return byte_of_copy(i) / kRowBytes; }

/// Keeps a value in registers where the compiler would rather compute it again, in a loop that has no time.
template <class T>
__device__ __forceinline__ void keep(T*& pointer) {
  asm volatile("" : "+l"(pointer));
}

/// Slot indexes from `index` on that a sequence has.
__device__ __forceinline__ int tokens_up_to(unsigned last, unsigned index) {
  return index > last ? 0 : static_cast<int>(min(last - index, 0x7ffffffeu)) + 1;
}

/// The codes of a warp's slice, copied to its ring a piece at a time. Where the row's table ends before the
/// row does, scores are of what lay in the ring before: such a row is reported, and its answer is of no use.
class CodeStream {
 public:
  /// @param seen  tokens that the row sees from the slice's first on; the table need not hold more
  __device__ __forceinline__ CodeStream(const Args& args, int kv_head, const Places& places,
                                        const Slice& slice, int seen, unsigned char* ring)
      : codes_(code_words(args, kv_head, {kPaged ? 0 : places.page, 0})),
        plane_words_(static_cast<int>(args.code_plane_stride / 4)),
        page_words_(static_cast<unsigned>(args.code_page_stride / 4)),
        table_(places.table),
        index_(places.start + static_cast<unsigned>(slice.first)),
        last_page_(places.last_page),
        tokens_(slice.tokens),
        seen_(min(min(seen, slice.tokens), tokens_up_to(places.last, index_))),
        ring_(ring),
        ring_bytes_(args.ring_stages * kPieceBytes) {
    keep(codes_);
    keep(table_);
    find_pages();
  }

  /// Begins to copy the first pieces, as many as the ring has room for.
  __device__ __forceinline__ void fill(unsigned& status) {
#pragma unroll 1
    do {
      begin_piece(status);
    } while (stage_ != 0);
  }

  /// Waits for the oldest piece.
  __device__ __forceinline__ const unsigned char* next_piece() const {
    if (ring_bytes_ == kPieceBytes) {
      wait_for_copies<0>();
    } else if (ring_bytes_ == 2 * kPieceBytes) {
      wait_for_copies<1>();
    } else {
      wait_for_copies<3>();
    }
    __syncwarp();
    return ring_ + stage_;
  }

  /// Once all lanes have loaded the oldest piece: begins to copy another one in its place, or counts an empty
  /// one.
  __device__ __forceinline__ void begin_piece(unsigned& status) {
    if (begun_ < tokens_) {
      if constexpr (kPieceInPage) {
        copy_whole(status);
      } else {
#pragma unroll
        for (int i = 0; i < kCopiesOfLane; ++i) {
          copy(i, status);
        }
      }
      begun_ += kPiece;
      find_pages();
    }
    end_copies();
    stage_ = stage_ + kPieceBytes == ring_bytes_ ? 0 : stage_ + kPieceBytes;
  }

 private:
  static constexpr int kPages = kPieceInPage ? 1 : kCopiesOfLane;  ///< that a lane looks up for a piece

  /// Looks up the pages of the piece after those that have begun, without waiting for them.
  __device__ __forceinline__ void find_pages() {
    if constexpr (!kPaged) return;
#pragma unroll
    for (int i = 0; i < kPages; ++i) {
      const int token = begun_ + (kPieceInPage ? 0 : token_of_copy(i));
      if (token < seen_) page_[i] = table_[(index_ + token) / kPageSize];
    }
  }

  /// First word of page `i` of those looked up.
  __device__ __forceinline__ const unsigned* page_words(int i, unsigned& status) const {
    if constexpr (!kPaged) return codes_;
    const int page = max(0, min(page_[i], last_page_));
    if (page != page_[i]) status |= adamas_abi::kBadTable;
    return codes_ + static_cast<unsigned long long>(static_cast<unsigned>(page)) * page_words_;
  }

  /// Copies to all planes of the ring, to where `byte` of a piece's plane lies.
  __device__ __forceinline__ void copy_planes(int byte, const unsigned* words) const {
    unsigned char* const to = ring_ + stage_ + ring_offset(byte);
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      copy_async<kCopyBytes>(to + plane * kPlaneBytes, words + plane * plane_words_);
    }
  }

  /// A piece of one page: all of it is memory, whether the row sees it or not.
  __device__ __forceinline__ void copy_whole(unsigned& status) const {
    if (begun_ >= seen_) return;
    const unsigned* const words =
        page_words(0, status) + token_of_index(index_ + begun_) * kWords + lane_index() * kCopyBytes / 4;
#pragma unroll
    for (int i = 0; i < kCopiesOfLane; ++i) {
      if (kCopiesOfPlane % kWarp != 0 && i * kWarp + lane_index() >= kCopiesOfPlane) return;
      const int byte = byte_of_copy(i), token = byte / kRowBytes;
      copy_planes(token * kRingRowBytes + byte % kRowBytes, words + i * kWarp * kCopyBytes / 4);
    }
  }

  __device__ __forceinline__ void copy(int i, unsigned& status) const {
    const int byte = byte_of_copy(i), in_piece = byte / kRowBytes, token = begun_ + in_piece;
    if (token >= seen_ || (kCopiesOfPlane % kWarp != 0 && in_piece >= kPiece)) return;
    copy_planes(in_piece * kRingRowBytes + byte % kRowBytes,
                page_words(i, status) + token_of_index(index_ + token) * kWords + byte % kRowBytes / 4);
  }

  const unsigned* codes_;  ///< of the K/V head in page 0, or in the sequence's row
  int plane_words_;
  unsigned page_words_;  ///< fits: pages have at most 1024 tokens
  const int* table_;
  unsigned index_;  ///< slot index of the slice's first token
  int last_page_;
  int tokens_, seen_;  ///< of the slice, in whole pieces; those that the row sees
  unsigned char* ring_;
  int ring_bytes_;
  int begun_ = 0;  ///< tokens whose copies have begun
  int stage_ = 0;  ///< of the ring, in bytes: that of the oldest piece
  int page_[kPages] = {};
};

// A warp loads a piece in matrices of eight units: matrix m of a plane has unit m of each lane row.
constexpr int kMatrices = kPlanes * kLaneUnits;
constexpr int kMatrixLoads = (kMatrices + 3) / 4;  ///< of four matrices each

/// Where in a piece the rows lie whose addresses this lane passes to each load.
struct MatrixRows {
  int offsets[kMatrixLoads];
};

__device__ __forceinline__ MatrixRows matrix_rows() {
  MatrixRows rows;
#pragma unroll
  for (int load = 0; load < kMatrixLoads; ++load) {
    // Where matrices are no multiple of 4, the last ones are loaded again.
    const int matrix = min(load * 4 + lane_index() / 8, kMatrices - 1);
    const int unit = lane_index() % 8 * kLaneUnits + matrix % kLaneUnits;
    rows.offsets[load] = matrix / kLaneUnits * kPlaneBytes + ring_offset(unit * kUnitBytes);
  }
  return rows;
}

/// A lane's words of a piece: word lane % 4 of each of its units, plane by plane.
struct PieceWords {
  unsigned words[4 * kMatrixLoads];
};

__device__ __forceinline__ void load_piece(const unsigned char* stage, const MatrixRows& rows,
                                           PieceWords& piece) {
#pragma unroll
  for (int load = 0; load < kMatrixLoads; ++load) {
    unsigned four[4];
    load_pieces(four, stage + rows.offsets[load]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      piece.words[4 * load + i] = four[i];
    }
  }
}

/// The words of one of the lane's tokens.
__device__ __forceinline__ void words_of_token(const PieceWords& piece, int token,
                                               unsigned (&codes)[kPlanes][kKeySteps]) {
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
#pragma unroll
    for (int step = 0; step < kKeySteps; ++step) {
      const int unit = kTokensPerUnit > 1 ? token / kTokensPerUnit : token * kKeySteps + step;
      codes[plane][step] = piece.words[plane * kLaneUnits + unit];
    }
  }
}

}  // namespace adamas_cuda
