// The temporal shift as an address: from which frame each range of channels is read.
#pragma once

#include "vector.cuh"

namespace bk {

struct Shift {
  int64_t n;  // frames of a clip
  bool wrap;
  int direction;  // 1: the shift; -1: its adjoint

  // How many frames on range `part` of frame t (of its clip) is read; kZeros where there is none.
  __device__ __forceinline__ int64_t step(int64_t t, int part) const {
    const int64_t u = t + (part == 0 ? direction : part == 1 ? -direction : 0);
    if (u >= 0 && u < n) return u - t;
    return wrap ? (u < 0 ? n - 1 : 0) - t : kZeros;
  }
  static constexpr int64_t kZeros = INT64_MIN;
};

// The ranges are [0, fold), [fold, 2 fold) and the rest.
__device__ __forceinline__ int part_of(uint32_t position, uint32_t fold) {
  return position < fold ? 0 : position - fold < fold ? 1 : 2;
}

// N neighbours at `offset` of their frames; the first is at `position` of a row of `period` channels (or of anything else
// that the ranges divide), which goes on with the next row. A null frame is zeros.
template <int N, class E>
__device__ __forceinline__ Vector<E, N> load_shifted(const E* const (&frames)[3], int64_t offset, uint32_t position,
                                                     uint32_t fold, uint32_t period) {
  const bool one_row = position + N <= period;
  const int first = one_row ? part_of(position, fold) : 0, last = one_row ? part_of(position + N - 1, fold) : 2;
  Vector<E, N> parts[3];
#pragma unroll
  for (int part = 0; part < 3; ++part) {
    const bool needed = part >= first && part <= last && frames[part] != nullptr;
    parts[part] = needed ? load<N>(frames[part] + offset) : Vector<E, N>{};
  }
  Vector<E, N> y;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int part = part_of(position, fold);
    y.v[i] = part == 0 ? parts[0].v[i] : part == 1 ? parts[1].v[i] : parts[2].v[i];
    if (++position >= period) position = 0;
  }
  return y;
}

}  // namespace bk
