// Neighbours in memory that are read and written at once, and divisions by numbers known before the launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace bk {

template <class E, int N>
struct alignas(sizeof(E) * N <= 16 ? sizeof(E) * N : 16) Vector {
  E v[N];
};

template <int N, class E>
__device__ __forceinline__ Vector<E, N> load(const E* p) {
  return *reinterpret_cast<const Vector<E, N>*>(p);
}
template <int N, class E>
__device__ __forceinline__ void store(E* p, const Vector<E, N>& v) {
  *reinterpret_cast<Vector<E, N>*>(p) = v;
}

// Division of 0 <= n < 2^31 by multiplication (Granlund and Montgomery 1994, figure 4.1).
struct Divisor {
  uint32_t divisor = 1, multiplier = 1;
  int shift = 0;

  Divisor() = default;
  explicit Divisor(uint32_t d) : divisor(d) {
    while ((uint64_t{1} << shift) < d) ++shift;
    multiplier = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d + 1);
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const { return (__umulhi(multiplier, n) + n) >> shift; }
};

}  // namespace bk
