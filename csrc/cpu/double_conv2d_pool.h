// What double_conv2d_pool.cpp and double_conv2d_pool_kernel.h agree on.
#pragma once

#include <array>
#include <cstdint>

namespace bk {

constexpr int64_t kDirect = 4;  // up to so many input channels a first convolution is computed directly

// One call, for the kernels.
struct DoubleConv2dPool {
  const float* x;
  float* y;
  std::array<int64_t, 4> x_stride, y_stride;
  int64_t in, mid, out, height, width, pool;
  const float *filter1, *filter2;  // packed
  const float *bias1, *bias2;      // a multiple of 16 long
};

}  // namespace bk
