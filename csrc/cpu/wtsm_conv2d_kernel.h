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
    for (int64_t i = 0; i < s.width * s.channels; i += kLanes) store(s.out + i, activate(load(s.out + i), s.activation));
  }
}

// --- Winograd F(3x3, 3x3) at 0, 1/2, -1, 2, infinity: 25 products in place of 81. A NaN or inf spreads over its tile. --

static BK_INLINE void input_transform(const V (&d)[5], V (&v)[5]) {
  v[0] = d[0] + d[3] - 1.5f * (d[1] + d[2]);
  v[1] = d[3] - d[2] - 2.0f * d[1];
  v[2] = d[1] + d[3] - 2.5f * d[2];
  v[3] = d[3] + 0.5f * (d[2] - d[1]);
  v[4] = d[1] + d[4] - 1.5f * (d[2] + d[3]);
}

static BK_INLINE void output_transform(const V (&m)[5], V (&y)[3]) {
  y[0] = m[0] + m[1] + m[2] + m[3];
  y[1] = 0.5f * m[1] - m[2] + 2.0f * m[3];
  y[2] = 0.25f * m[1] + m[2] + 4.0f * m[3] + m[4];
}

// One vector of channels of one tile. The shift is part of the load: lanes below `first` come from the next frame, those
// below `second` from the previous one.
template <bool SHIFTED>
static BK_INLINE void tile_input(const float* const (&src)[3], int64_t c, int first, int second, const ConvTiles& s, float* out) {
  VI lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  V half[5][5];
#pragma GCC unroll 5
  for (int i = 0; i < 5; ++i) {
    V d[5];
#pragma GCC unroll 5
    for (int j = 0; j < 5; ++j) {
      const int64_t at = i * s.row_stride + j * s.pixel_stride + c;
      d[j] = load(src[2] + at);
      if (SHIFTED) {
        d[j] = lane < second ? load(src[1] + at) : d[j];
        d[j] = lane < first ? load(src[0] + at) : d[j];
      }
    }
    input_transform(d, half[i]);
  }
#pragma GCC unroll 5
  for (int j = 0; j < 5; ++j) {
    const V column[5] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j]};
    V v[5];
    input_transform(column, v);
#pragma GCC unroll 5
    for (int i = 0; i < 5; ++i) store(out + (i * 5 + j) * kTiles * s.pixel_stride, v[i]);
  }
}

static void conv_tiles(const ConvTiles& s) {
  for (int64_t tile = 0; tile < s.count; ++tile) {
    const auto& src = s.src[tile];
    const bool shifted = src[0] != src[2] || src[1] != src[2];
    for (int64_t c = 0; c < s.cin; c += kLanes) {
      float* out = s.input + tile * s.pixel_stride + c;
      const int first = static_cast<int>(std::clamp<int64_t>(s.bound[0] - c, 0, kLanes));
      const int second = static_cast<int>(std::clamp<int64_t>(s.bound[1] - c, 0, kLanes));
      if (shifted && second > 0)
        tile_input<true>(src, c, first, second, s, out);
      else
        tile_input<false>(src, c, 0, 0, s, out);
    }
  }
  static const float zeros[64] = {};
  for (int64_t channel = 0; channel < s.channels; channel += 64) {
    const int64_t channels = std::min<int64_t>(64, s.channels - channel);
    for (int64_t k = 0; k < 25; ++k) {
      const float* v = s.input + k * kTiles * s.pixel_stride;
      conv_row({{v, v, v}, {0, s.cin, s.cin, s.cin}, 0, s.pixel_stride, 1, 1, s.cin, s.count,
                s.packed + (k * s.channels + channel) * s.cin, zeros, channels, Activation::none,
                s.product + k * kTiles * 64});
    }
    for (int64_t tile = 0; tile < s.count; ++tile) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        const V bias = load(s.bias + channel + c);
        V half[5][3];
#pragma GCC unroll 5
        for (int i = 0; i < 5; ++i) {
          V m[5];
#pragma GCC unroll 5
          for (int j = 0; j < 5; ++j) m[j] = load(s.product + ((i * 5 + j) * kTiles) * 64 + tile * channels + c);
          output_transform(m, half[i]);
        }
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          const V column[5] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j]};
          V y[3];
          output_transform(column, y);
#pragma GCC unroll 3
          for (int i = 0; i < 3; ++i)
            store(s.out + (tile * 9 + i * 3 + j) * s.channels + channel + c, activate(y[i] + bias, s.activation));
        }
      }
    }
  }
}
