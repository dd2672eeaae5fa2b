// Stands in for CUDA's warp matrix functions: every thread of a warp holds whole operands, and of a result the part that it
// has to give. Addresses are held to what the real functions ask for.
#pragma once

#include <cuda_runtime.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

using __half = torch::headeronly::Half;
using __nv_bfloat16 = torch::headeronly::BFloat16;

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

// To 10 bits of mantissa, halves away from zero.
inline float __float_to_tf32(float v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
  __builtin_memcpy(&v, &bits, sizeof(bits));
  return v;
}

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static constexpr int kRows = std::is_same_v<Use, matrix_b> ? K : M, kColumns = std::is_same_v<Use, matrix_a> ? K : N;
  float x[kRows * kColumns];
};

template <class T>
void check(const T* p, unsigned ld) {
  if (reinterpret_cast<uintptr_t>(p) % 32 != 0 || ld * sizeof(T) % 16 != 0) cuda_on_cpu::fail("a matrix is not aligned");
}

template <class F>
void fill_fragment(F& f, float v) {
  std::fill_n(f.x, sizeof(f.x) / sizeof(float), v);
}

template <class Use, int M, int N, int K, class P, class Layout, class T>
void load_matrix_sync(fragment<Use, M, N, K, P, Layout>& f, const T* p, unsigned ld) {
  using F = fragment<Use, M, N, K, P, Layout>;
  check(p, ld);
  for (int i = 0; i < F::kRows; ++i) {
    for (int j = 0; j < F::kColumns; ++j)
      f.x[i * F::kColumns + j] = static_cast<float>(p[std::is_same_v<Layout, row_major> ? i * ld + j : j * ld + i]);
  }
}

// Of 16 x 16 results a thread keeps eight.
inline int part() { return static_cast<int>(threadIdx.x % 32) * 8; }

template <int K, class P, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, 16, 16, K, float>& d, const fragment<matrix_a, 16, 16, K, P, LayoutA>& a,
              const fragment<matrix_b, 16, 16, K, P, LayoutB>& b, const fragment<accumulator, 16, 16, K, float>& c) {
  for (int e = part(); e < part() + 8; ++e) {
    float sum = c.x[e];
    for (int k = 0; k < K; ++k) sum += a.x[e / 16 * K + k] * b.x[k * 16 + e % 16];
    d.x[e] = sum;
  }
}

template <int K>
void store_matrix_sync(float* p, const fragment<accumulator, 16, 16, K, float>& f, unsigned ld, layout_t layout) {
  check(p, ld);
  for (int e = part(); e < part() + 8; ++e) p[layout == mem_row_major ? e / 16 * ld + e % 16 : e % 16 * ld + e / 16] = f.x[e];
}

}  // namespace nvcuda::wmma
