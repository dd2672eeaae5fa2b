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
  const float* packed;  // pack_wtsm_conv2d
  const float* bias;    // padded to `channels`
  int64_t channels;     // of the output, padded to a multiple of 16
  Activation activation;
  float* out;  // (width, channels)
};

}  // namespace bk
