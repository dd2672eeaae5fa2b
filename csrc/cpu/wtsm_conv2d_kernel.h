// Direct convolution of one output row, register-blocked over pixels and output channels. Channels are the fastest
// dimension of its input; each of three channel ranges has a base address of its own, so that the shift costs nothing.

#include "activation.h"

constexpr int kVectors = 2;                            // of output channels a block
constexpr int kMaxPixels = kLanes == 16 ? 14 : 6;      // accumulators = pixels * vectors: 28 of 32, 12 of 16 registers

template <int PIXELS, int VECTORS>
static void conv_block(const ConvRow& s, int64_t pixel, int64_t channel) {
  const float* weights[VECTORS];
  V acc[PIXELS][VECTORS];
#pragma GCC unroll 16
  for (int v = 0; v < VECTORS; ++v) {
    const int64_t c = channel + v * kLanes;
    weights[v] = s.packed + (c / 16) * s.kh * s.kw * s.cin * 16 + c % 16;
    const V bias = load(s.bias + c);
#pragma GCC unroll 16
    for (int p = 0; p < PIXELS; ++p) acc[p][v] = bias;
  }
  const int64_t step = s.pixel_stride;
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    for (int64_t kx = 0; kx < s.kw; ++kx) {
      const int64_t offset = ky * s.row_stride + (pixel + kx) * step;
      for (int r = 0; r < 3; ++r) {
        const float* x = s.src[r] + offset;
        for (int64_t c = s.bound[r]; c < s.bound[r + 1]; ++c) {
          V w[VECTORS];
#pragma GCC unroll 16
          for (int v = 0; v < VECTORS; ++v) {
            w[v] = load(weights[v]);
            weights[v] += 16;
          }
#pragma GCC unroll 16
          for (int p = 0; p < PIXELS; ++p) {
            const float value = x[p * step + c];
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v) acc[p][v] += value * w[v];
          }
        }
      }
    }
  }
  const bool positive = s.activation == Activation::relu;
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v)
      store(s.out + (pixel + p) * s.channels + channel + v * kLanes, positive ? relu(acc[p][v]) : acc[p][v]);
  }
}

template <int VECTORS, int PIXELS = kMaxPixels>
static void conv_pixels(const ConvRow& s, int64_t pixel, int64_t count, int64_t channel) {
  if constexpr (PIXELS > 0) {
    if (count == PIXELS)
      conv_block<PIXELS, VECTORS>(s, pixel, channel);
    else
      conv_pixels<VECTORS, PIXELS - 1>(s, pixel, count, channel);
  }
}

static void conv_row(const ConvRow& s) {
  const int64_t blocks = (s.width + kMaxPixels - 1) / kMaxPixels;
  for (int64_t channel = 0; channel < s.channels; channel += kVectors * kLanes) {
    const bool whole = channel + kVectors * kLanes <= s.channels;
    for (int64_t b = 0; b < blocks; ++b) {  // blocks of nearly equal length
      const int64_t pixel = s.width * b / blocks, count = s.width * (b + 1) / blocks - pixel;
      if (whole)
        conv_pixels<kVectors>(s, pixel, count, channel);
      else
        conv_pixels<1>(s, pixel, count, channel);
    }
  }
  if (s.activation == Activation::tanh || s.activation == Activation::elu) {
    for (int64_t i = 0; i < s.width * s.channels; i += kLanes) {
      const V v = load(s.out + i);
      store(s.out + i, s.activation == Activation::tanh ? tanh(v) : elu(v));
    }
  }
}
