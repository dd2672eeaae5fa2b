// What wtsm_conv2d.cpp and wtsm_conv2d_kernel.h agree on.
#pragma once

#include <cstdint>

namespace bk {

enum class Activation { none, relu, tanh, elu };

// One row of `width` output pixels. src[r] points at the receptive field's first value for channels [bound[r], bound[r+1]).
struct ConvRow {
  const float* src[3];
  int64_t bound[4];
  int64_t row_stride, pixel_stride;  // of src, in floats
  int64_t kh, kw, cin, width;
  const float* packed;  // blocks of 16 output channels: (channels / 16, kh, kw, cin, 16)
  const float* bias;    // padded to `channels`
  int64_t channels;     // of the output, padded to a multiple of 16
  Activation activation;
  float* out;  // (width, channels)
};

constexpr int kTiles = 14;  // of 3x3 output pixels, computed together

// Up to kTiles tiles of a 3x3 convolution by Winograd's F(3x3, 3x3).
struct ConvTiles {
  int64_t count;
  const float* src[kTiles][3];  // each tile's 5x5 input, for the three channel ranges that `bound` separates
  int64_t bound[2];
  int64_t row_stride, pixel_stride;  // of src; pixel_stride is a multiple of 16, zero beyond cin
  int64_t cin;
  const float* packed;  // (25, channels / 16, cin, 16)
  const float* bias;
  int64_t channels;
  Activation activation;
  float* input;    // workspace: (25, kTiles, pixel_stride)
  float* product;  // workspace: (25, kTiles, 64), for 64 output channels at a time
  float* out;      // (count, 9, channels)
};

}  // namespace bk
