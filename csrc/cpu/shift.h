// The temporal shift as an address: which frame of its clip each channel range of a frame reads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bk {

struct Shift {
  int64_t n, channels, fold;
  bool wrap;
  int direction;  // 1: the shift; -1: its adjoint

  // Source frame of channel range `part` of frame t; -1 for zeros.
  int64_t source(int64_t t, int part) const {
    const int64_t u = t + (part == 0 ? direction : part == 1 ? -direction : 0);
    if (u >= 0 && u < n) return u;
    return wrap ? (u < 0 ? n - 1 : 0) : -1;
  }
  // The ranges are [0, f), [f, 2f) and [2f, C), cut off at C.
  int64_t begin(int part) const { return std::min(part * fold, channels); }
  int64_t end(int part) const { return part == 2 ? channels : std::min((part + 1) * fold, channels); }
};

}  // namespace bk
