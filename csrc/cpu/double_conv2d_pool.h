// What double_conv2d_pool.cpp and its kernels agree on.
#pragma once

#include <array>
#include <cstdint>

namespace bk {

constexpr int kSide = 6, kTileParts = (kSide + 2) * (kSide + 2);  // of Winograd's tiles: outputs in a row, products

// One call, for the kernels.
template <class Value>
struct Block {
  const Value* x;
  Value* y;
  std::array<int64_t, 4> x_stride, y_stride;
  int64_t in, mid, out, height, width, pool;
  const Value *filter1, *filter2;  // packed
  const float *bias1, *bias2;      // a multiple of 32 long
};
using DoubleConv2dPool = Block<float>;
using HalfBlock = Block<uint16_t>;  // bfloat16

// One call of its backward. An image is divided into `bands`, for a few images to be work for many threads.
struct DoubleConv2dPoolBackward {
  const float *grad, *x;
  float* x_grad;  // null where it is not asked for
  std::array<int64_t, 4> grad_stride, x_stride, x_grad_stride;
  int64_t in, mid, out, height, width, pool, bands;
  bool first;                                            // whether the first convolution's gradients are asked for
  const float *filter1, *filter2, *turned1, *turned2;  // packed; the turned ones' convolutions are the adjoints
  const float *bias1, *bias2;
};

}  // namespace bk
