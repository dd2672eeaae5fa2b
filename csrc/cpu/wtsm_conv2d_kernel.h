// Direct convolution of one output row, register-blocked over pixels and output channels. Channels are the fastest
// dimension of its input; each of three channel ranges has a base address of its own, so that the shift costs nothing.

#include "activation.h"
#include "tile_products.h"

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
#pragma GCC unroll 4
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

// One vector of channels of one tile, its lanes below cut[0] from src[0], those below cut[1] from src[1], and so on: the
// shift is part of the load; a part of the result lies `part` floats behind the one before.
template <int SOURCES>
static BK_INLINE void tile_input(const float* const* src, const int* cut, int64_t c, const TileInputs& s, float* out,
                                 int64_t part) {
  VI lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  V half[5][5];
#pragma GCC unroll 5
  for (int i = 0; i < 5; ++i) {
    V d[5];
#pragma GCC unroll 5
    for (int j = 0; j < 5; ++j) {
      const int64_t at = i * s.row_stride + j * s.pixel_stride + c;
      d[j] = load(src[SOURCES - 1] + at);
#pragma GCC unroll 2
      for (int k = SOURCES - 2; k >= 0; --k) d[j] = lane < cut[k] ? load(src[k] + at) : d[j];
    }
    input_transform(d, half[i]);
  }
#pragma GCC unroll 5
  for (int j = 0; j < 5; ++j) {
    const V column[5] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j]};
    V v[5];
    input_transform(column, v);
#pragma GCC unroll 5
    for (int i = 0; i < 5; ++i) store(out + (i * 5 + j) * part, v[i]);
  }
}

// A vector of channels of tiles [begin, end) goes where at(tile, channel) says.
template <class At>
static BK_INLINE void transform_inputs(const TileInputs& s, int64_t begin, int64_t end, int64_t part, const At& at) {
  for (int64_t tile = begin; tile < end; ++tile) {
    for (int64_t c = 0; c < s.cin; c += kLanes) {
      // The ranges with channels in this vector: from `first` to `last`.
      const int cut[2] = {static_cast<int>(std::clamp<int64_t>(s.bound[0] - c, 0, kLanes)),
                          static_cast<int>(std::clamp<int64_t>(s.bound[1] - c, 0, kLanes))};
      const int first = cut[0] > 0 ? 0 : cut[1] > 0 ? 1 : 2;
      const int last = cut[0] == kLanes ? 0 : cut[1] == kLanes ? 1 : 2;
      const float* const* src = s.src[tile] + first;
      float* out = at(tile, c);
      if (last == first)
        tile_input<1>(src, cut + first, c, s, out, part);
      else if (last == first + 1)
        tile_input<2>(src, cut + first, c, s, out, part);
      else
        tile_input<3>(src, cut, c, s, out, part);
    }
  }
}

static void tile_inputs(const TileInputs& s) {
  transform_inputs(s, 0, s.count, kTiles * s.pixel_stride,
                   [&](int64_t tile, int64_t c) { return s.out + tile * s.pixel_stride + c; });
}

using Transformed = TransformedTiles<25>;
constexpr int kGroups = (kTiles + kGroup - 1) / kGroup;
static_assert(kGroups * Transformed::kPart <= kRoom * kLanes);

static void conv_tiles(const ConvTiles& s) {
  const TileInputs& in = s.in;
  const Groups<kGroups> groups(in.count);
  const Transformed v{in.out, ceil_div(in.cin, kLanes)};
  for (int64_t g = 0; g < groups.groups; ++g) {
    transform_inputs(in, groups.first[g], groups.first[g + 1], Transformed::kPart, [&](int64_t tile, int64_t c) {
      return v.at(g, c / kLanes) + (tile - groups.first[g]) * kLanes;
    });
  }
  for (int64_t channel = 0; channel < s.channels; channel += kProduct) {
    const Transformed m{s.product, lesser(kProduct, s.channels - channel) / kLanes};
    multiply(groups, v, s.packed + channel * in.cin, s.channels / 16, in.cin, m);
    for (int64_t g = 0; g < groups.groups; ++g) {
      for (int64_t tile = groups.first[g]; tile < groups.first[g + 1]; ++tile) {
        const float* product = m.at(g, 0) + (tile - groups.first[g]) * kLanes;
        for (int64_t c = channel; c < channel + m.vectors * kLanes; c += kLanes, product += Transformed::kVector) {
          const V bias = load(s.bias + c);
          V half[5][3];
#pragma GCC unroll 5
          for (int i = 0; i < 5; ++i) {
            V p[5];
#pragma GCC unroll 5
            for (int j = 0; j < 5; ++j) p[j] = load(product + (i * 5 + j) * Transformed::kPart);
            output_transform(p, half[i]);
          }
          float* out = s.out[tile] + c;
#pragma GCC unroll 3
          for (int j = 0; j < 3; ++j) {
            const V column[5] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j]};
            V y[3];
            output_transform(column, y);
#pragma GCC unroll 3
            for (int i = 0; i < 3; ++i) store(out + i * s.out_row + j * s.out_pixel, activate(y[i] + bias, s.activation));
          }
        }
      }
    }
  }
}

// --- packed filters ---------------------------------------------------------------------------------------------------

typedef double D __attribute__((vector_size(BK_LANES * sizeof(double))));

static BK_INLINE void filter_transform(const D (&w)[3], D (&u)[5]) {
  u[0] = w[0];
  u[1] = (4.0 * w[0] + 2.0 * w[1] + w[2]) * (-2.0 / 9);
  u[2] = (w[1] - w[0] - w[2]) * (2.0 / 9);
  u[3] = (w[0] + 2.0 * w[1] + 4.0 * w[2]) * (1.0 / 9);
  u[4] = w[2];
}

// (out, in, taps) -> (out / 16, taps, in, 16), or (25, out / 16, in, 16) in the Winograd domain; zero beyond `out`.
static void pack_filter(const FilterLayout& f, const float* weight, float* packed, int64_t begin, int64_t end) {
  const int64_t blocks = (f.out + 15) / 16;
  const int64_t out_step = (f.turned ? 1 : f.in) * f.taps, in_step = (f.turned ? f.out : 1) * f.taps;
  const int64_t plane = blocks * f.in * 16, start = f.turned ? f.taps - 1 : 0, tap_step = f.turned ? -1 : 1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit / f.in, c = unit % f.in, outs = std::min<int64_t>(16, f.out - 16 * block);
    const float* from = weight + block * 16 * out_step + c * in_step + start;
    if (!f.winograd) {
      for (int64_t t = 0; t < f.taps; ++t) {
        float* to = packed + ((block * f.taps + t) * f.in + c) * 16;
        for (int64_t o = 0; o < 16; ++o) to[o] = o < outs ? from[o * out_step + t * tap_step] : 0.0f;
      }
      continue;
    }
    float taps[9][16];
    if (outs < 16) __builtin_memset(taps, 0, sizeof(taps));
    for (int64_t o = 0; o < outs; ++o, from += out_step) {
#pragma GCC unroll 9
      for (int t = 0; t < 9; ++t) taps[t][o] = from[t * tap_step];
    }
    for (int first = 0; first < 16; first += kLanes) {
      D half[3][5];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        D w[3];
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) w[i] = __builtin_convertvector(load(taps[3 * i + j] + first), D);
        filter_transform(w, half[j]);
      }
      float* to = packed + unit * 16 + first;
#pragma GCC unroll 5
      for (int i = 0; i < 5; ++i) {
        const D row[3] = {half[0][i], half[1][i], half[2][i]};
        D u[5];
        filter_transform(row, u);
#pragma GCC unroll 5
        for (int j = 0; j < 5; ++j, to += plane) store(to, __builtin_convertvector(u[j], V));
      }
    }
  }
}

// --- planes and pixels ------------------------------------------------------------------------------------------------

// Squares of kLanes pixels by kLanes channels; f(channel, channels, pixel, offsets of the pixels) transposes one.
template <class F>
static BK_INLINE void squares(const PlanesAndPixels& s, const F& f) {
  const int64_t count = s.height * s.width;
  for (int64_t next = 0; next < count; next += kLanes) {
    const int64_t first = std::min(next, count - kLanes);
    int64_t offset[kLanes];
    for (int64_t i = 0, y = first / s.width, x = first % s.width; i < kLanes; ++i) {
      offset[i] = y * s.row_stride + x * s.pixel_stride;
      if (++x == s.width) x = 0, ++y;
    }
    for (int64_t c = 0; c < s.channels; c += kLanes) f(c, std::min<int64_t>(kLanes, s.channels - c), first, offset);
  }
}

// Zero channels fill up the last vector; pixel_stride is a multiple of 16.
static void planes_to_pixels(const PlanesAndPixels& s, const float* planes, float* pixels) {
  if (s.height * s.width < kLanes) {
    for (int64_t i = 0; i < s.height * s.width; ++i) {
      float* pixel = pixels + i / s.width * s.row_stride + i % s.width * s.pixel_stride;
      for (int64_t c = 0; c < s.channels; ++c) pixel[c] = planes[c * s.plane + i];
    }
    return;
  }
  squares(s, [&](int64_t c, int64_t channels, int64_t first, const int64_t (&offset)[kLanes]) {
    V v[kLanes];
    const float* plane = planes + c * s.plane + first;
    if (channels == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i, plane += s.plane) v[i] = load(plane);
    } else {
      for (int i = 0; i < kLanes; ++i, plane += s.plane) v[i] = i < channels ? load(plane) : V{};
    }
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(pixels + offset[i] + c, v[i]);
  });
}

static void pixels_to_planes(const PlanesAndPixels& s, const float* pixels, float* planes) {
  if (s.height * s.width < kLanes) {
    for (int64_t i = 0; i < s.height * s.width; ++i) {
      const float* pixel = pixels + i / s.width * s.row_stride + i % s.width * s.pixel_stride;
      for (int64_t c = 0; c < s.channels; ++c) planes[c * s.plane + i] = pixel[c];
    }
    return;
  }
  squares(s, [&](int64_t c, int64_t channels, int64_t first, const int64_t (&offset)[kLanes]) {
    V v[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v[i] = load(pixels + offset[i] + c);
    transpose(v);
    float* plane = planes + c * s.plane + first;
    if (channels == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i, plane += s.plane) store(plane, v[i]);
    } else {
      for (int i = 0; i < channels; ++i, plane += s.plane) store(plane, v[i]);
    }
  });
}
