// The product of a block's tiles in shared memory, by tensor cores or by multiply-adds. A block has kProductThreads threads.
//
// a: kRows x kDepth, stored by rows, or by columns with kTurned; b: kDepth x kColumns, stored by columns. The leading
// dimensions keep threads off each other's banks and every fragment on 32 bytes, as wmma asks.
#pragma once

#include <mma.h>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

namespace bk {

constexpr int kProductThreads = 128;

template <class T, int kRows_, int kColumns_, bool kTurned_>
struct Tile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kDepth = 64 / sizeof(T), kPad = 16 / sizeof(T);
  static constexpr bool kTurned = kTurned_;
  static constexpr int kStrideA = (kTurned ? kRows : kDepth) + kPad, kStrideB = kDepth + kPad;
  static constexpr int kSizeA = kStrideA * (kTurned ? kDepth : kRows), kSizeB = kStrideB * kColumns;
  // The result is stored by rows or by columns.
  static constexpr int kStrideByRows = kColumns + 4, kStrideByColumns = kRows + 4;
  static constexpr int kSizeC = kRows * kStrideByRows > kColumns * kStrideByColumns ? kRows * kStrideByRows : kColumns * kStrideByColumns;

  __device__ __forceinline__ static int a(int row, int k) { return kTurned ? k * kStrideA + row : row * kStrideA + k; }
  __device__ __forceinline__ static int b(int k, int column) { return column * kStrideB + k; }
};

// float16, bfloat16, and float32 rounded to TF32; sums in float32.
template <class T, class Tile>
class TensorCores {
 public:
  using Sum = float;

  __device__ __forceinline__ TensorCores() {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) nvcuda::wmma::fill_fragment(sum_[i][j], 0.0f);
    }
  }

  // What is stored in shared memory of a value.
  __device__ __forceinline__ static T stored(T v) {
    if constexpr (std::is_same_v<T, float>)
      return nvcuda::wmma::__float_to_tf32(v);
    else
      return v;
  }

  __device__ __forceinline__ void add(const T* a, const T* b) {
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, kK, Operand, LayoutA> fa[kM];
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, kK, Operand, nvcuda::wmma::col_major> fb[kN];
#pragma unroll
    for (int k = 0; k < Tile::kDepth; k += kK) {
#pragma unroll
      for (int i = 0; i < kM; ++i)
        nvcuda::wmma::load_matrix_sync(fa[i], pointer(a + Tile::a(row(i), k)), Tile::kStrideA);
#pragma unroll
      for (int j = 0; j < kN; ++j)
        nvcuda::wmma::load_matrix_sync(fb[j], pointer(b + Tile::b(k, column(j))), Tile::kStrideB);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int j = 0; j < kN; ++j) nvcuda::wmma::mma_sync(sum_[i][j], fa[i], fb[j], sum_[i][j]);
      }
    }
  }

  __device__ __forceinline__ void store(float* c, bool by_rows) const {
    const int row_step = by_rows ? Tile::kStrideByRows : 1, column_step = by_rows ? 1 : Tile::kStrideByColumns;
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j)
        nvcuda::wmma::store_matrix_sync(c + row(i) * row_step + column(j) * column_step, sum_[i][j], by_rows ? row_step : column_step,
                                        by_rows ? nvcuda::wmma::mem_row_major : nvcuda::wmma::mem_col_major);
    }
  }

 private:
  // Four warps share the rows, or where there are few of them the columns too.
  static constexpr int kWarpsDown = Tile::kRows >= 64 ? 4 : 2, kWarpsAcross = 4 / kWarpsDown;
  static constexpr int kM = Tile::kRows / kWarpsDown / 16, kN = Tile::kColumns / kWarpsAcross / 16;
  static constexpr int kK = std::is_same_v<T, float> ? 8 : 16;
  using Operand = std::conditional_t<std::is_same_v<T, float>, nvcuda::wmma::precision::tf32,
                                     std::conditional_t<std::is_same_v<T, torch::headeronly::Half>, __half, __nv_bfloat16>>;
  using Stored = std::conditional_t<std::is_same_v<T, float>, float, Operand>;
  using LayoutA = std::conditional_t<Tile::kTurned, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;

  __device__ __forceinline__ static const Stored* pointer(const T* p) { return reinterpret_cast<const Stored*>(p); }
  __device__ __forceinline__ static int row(int i) { return (static_cast<int>(threadIdx.x) / 32 / kWarpsAcross * kM + i) * 16; }
  __device__ __forceinline__ static int column(int j) { return (static_cast<int>(threadIdx.x) / 32 % kWarpsAcross * kN + j) * 16; }

  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, kK, float> sum_[kM][kN];
};

// float32 and float64 to their own precision.
template <class T, class Tile>
class MultiplyAdds {
 public:
  using Sum = T;

  __device__ __forceinline__ static T stored(T v) { return v; }

  __device__ __forceinline__ void add(const T* a, const T* b) {
#pragma unroll 2  // more asks for more registers than there are
    for (int k = 0; k < Tile::kDepth; ++k) {
      T fa[kM], fb[kN];
#pragma unroll
      for (int i = 0; i < kM; ++i) fa[i] = a[Tile::a(row(i), k)];
#pragma unroll
      for (int j = 0; j < kN; ++j) fb[j] = b[Tile::b(k, column(j))];
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int j = 0; j < kN; ++j) sum_[i][j] += fa[i] * fb[j];
      }
    }
  }

  __device__ __forceinline__ void store(T* c, bool by_rows) const {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j)
        c[by_rows ? row(i) * Tile::kStrideByRows + column(j) : column(j) * Tile::kStrideByColumns + row(i)] = sum_[i][j];
    }
  }

 private:
  // A thread's values lie apart by the number of threads across and down, so that neighbours read neighbours.
  static constexpr int kN = Tile::kColumns == 64 ? 8 : Tile::kRows == 128 ? 4 : 2, kAcross = Tile::kColumns / kN;
  static constexpr int kDown = kProductThreads / kAcross, kM = Tile::kRows / kDown;

  __device__ __forceinline__ static int row(int i) { return static_cast<int>(threadIdx.x) / kAcross + i * kDown; }
  __device__ __forceinline__ static int column(int j) { return static_cast<int>(threadIdx.x) % kAcross + j * kAcross; }

  T sum_[kM][kN] = {};
};

}  // namespace bk
