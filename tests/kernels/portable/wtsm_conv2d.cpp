// Rows of any filter and tiles of 3x3 filters, the shift in their addresses.
#include "check.h"

#include <array>
#include <cstring>
#include <utility>

#include "cpu/shift.h"
#include "cpu/wtsm_conv2d.h"

namespace bk::portable {
#include "cpu/vec.h"
#include "cpu/wtsm_conv2d_kernel.h"
}  // namespace bk::portable

namespace {

using bk::Activation;
constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::tanh, Activation::elu};

double activated(double v, Activation a) {
  if (a == Activation::relu) return std::max(v, 0.0);
  if (a == Activation::tanh) return std::tanh(v);
  return a == Activation::elu && v < 0 ? std::expm1(v) : v;
}

// Frames inside zeros, channels fastest; the last one is all zeros.
struct Clip {
  bk::Shift shift;
  int64_t height, width, channels;  // with the zeros around
  Memory values;

  Clip(int64_t frames, int64_t rows, int64_t columns, int64_t cin, int64_t pad, int64_t height, int64_t width, int64_t channels,
       bool wrap)
      : shift{frames, cin, cin / 3, wrap, 1}, height(height), width(width), channels(channels),
        values((frames + 1) * height * width * channels) {
    std::fill_n(values.data(), values.size(), 0.0f);
    for (int64_t i = 0; i < frames * rows * columns * cin; ++i) {
      const int64_t f = i / (rows * columns * cin), r = i / (columns * cin) % rows, q = i / cin % columns;
      *at(f, r + pad, q + pad, i % cin) = static_cast<float>(normal());
    }
  }
  float* at(int64_t frame, int64_t y, int64_t x, int64_t c = 0) {
    return values.data() + ((frame * height + y) * width + x) * channels + c;
  }
  // What output pixels of frame t read for a range of channels.
  const float* window(int64_t t, int part, int64_t y, int64_t x) {
    const int64_t from = shift.source(t, part);
    return at(from < 0 ? shift.n : from, y, x);
  }
  double shifted(int64_t t, int64_t y, int64_t x, int64_t c) {
    return window(t, c < shift.end(0) ? 0 : c < shift.end(1) ? 1 : 2, y, x)[c];
  }
  double convolved(int64_t t, int64_t y, int64_t x, int64_t o, const Doubles& w, int64_t kh, int64_t kw, double bias) {
    double sum = bias;
    for (int64_t c = 0; c < shift.channels; ++c) {
      for (int64_t k = 0; k < kh * kw; ++k)
        sum += shifted(t, y + k / kw, x + k % kw, c) * w[(o * shift.channels + c) * kh * kw + k];
    }
    return sum;
  }
};

double rows_error(int64_t cin, int64_t cout, int64_t kh, int64_t kw, int64_t height, int64_t width, bool wrap, Activation a) {
  constexpr int64_t frames = 3;
  Clip clip(frames, height + kh - 1, width + kw - 1, cin, 0, height + kh - 1, width + kw - 1, cin, wrap);
  const int64_t channels = round_up(cout, 16);
  const Doubles w = random_filter(cout, cin, kh * kw);
  Memory packed(channels * cin * kh * kw), bias(channels);
  pack_direct(w, cout, cin, kh * kw, packed.data());
  bias.fill_normal();
  Error error;
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t y = 0; y < height; ++y) {
      Memory out(width * channels);
      const bk::Shift& s = clip.shift;
      bk::portable::conv_row({{clip.window(t, 0, y, 0), clip.window(t, 1, y, 0), clip.window(t, 2, y, 0)},
                          {0, s.end(0), s.end(1), cin}, clip.width * cin, cin, kh, kw, cin, width, packed.data(), bias.data(),
                          channels, a, out.data()});
      for (int64_t i = 0; i < width * cout; ++i) {
        const int64_t x = i / cout, o = i % cout;
        error(out[x * channels + o], activated(clip.convolved(t, y, x, o, w, kh, kw, bias[o]), a));
      }
    }
  }
  return error.value();
}

// (out, in, 9) -> (25, out / 16, in, 16): F(3x3, 3x3) at 0, 1/2, -1, 2, infinity.
void pack_winograd(const Doubles& w, int64_t out, int64_t in, float* packed) {
  constexpr double g[5][3] = {
      {1, 0, 0}, {-8. / 9, -4. / 9, -2. / 9}, {-2. / 9, 2. / 9, -2. / 9}, {1. / 9, 2. / 9, 4. / 9}, {0, 0, 1}};
  const int64_t plane = round_up(out, 16) * in;
  std::fill_n(packed, 25 * plane, 0.0f);
  for (int64_t i = 0; i < 25 * out * in; ++i) {
    const int64_t p = i / (out * in), o = i / in % out, c = i % in;
    double sum = 0;
    for (int64_t k = 0; k < 9; ++k) sum += g[p / 5][k / 3] * g[p % 5][k % 3] * w[(o * in + c) * 9 + k];
    packed[p * plane + (o / 16 * in + c) * 16 + o % 16] = static_cast<float>(sum);
  }
}

double tiles_error(int64_t cin, int64_t cout, int64_t height, int64_t width, bool wrap, Activation a) {
  constexpr int64_t frames = 3;
  const int64_t channels = round_up(cout, 16), pixel = round_up(cin, 16), across = (width + 2) / 3, down = (height + 2) / 3;
  Clip clip(frames, height, width, cin, 1, 3 * down + 2, 3 * across + 2, pixel, wrap);
  const Doubles w = random_filter(cout, cin, 9);
  Memory packed(25 * channels * cin), bias(channels);
  pack_winograd(w, cout, cin, packed.data());
  bias.fill_normal();
  Error error;
  for (int64_t first = 0, count; first < frames * down * across; first += count) {
    count = std::min(1 + below(bk::kTiles), frames * down * across - first);
    Memory input(25 * bk::kTiles * pixel), product(25 * bk::kTiles * 64), out(count * 9 * channels);
    bk::ConvTiles tiles{count, {}, {clip.shift.end(0), clip.shift.end(1)}, clip.width * pixel, pixel, cin, packed.data(),
                        bias.data(), channels, a, input.data(), product.data(), out.data()};
    const auto place = [&](int64_t tile) {
      return std::array<int64_t, 3>{tile / (down * across), tile / across % down * 3, tile % across * 3};
    };
    for (int64_t tile = 0; tile < count; ++tile) {
      const auto [t, y, x] = place(first + tile);
      for (int part = 0; part < 3; ++part) tiles.src[tile][part] = clip.window(t, part, y, x);
    }
    bk::portable::conv_tiles(tiles);
    for (int64_t i = 0; i < count * 9 * cout; ++i) {
      const auto [t, y, x] = place(first + i / (9 * cout));
      const int64_t k = i / cout % 9, o = i % cout;
      error(out[i / cout * channels + o], activated(clip.convolved(t, y + k / 3, x + k % 3, o, w, 3, 3, bias[o]), a));
    }
  }
  return error.value();
}

}  // namespace

void check_convolutions() {
  double rows = 0, tiles = 0;
  for (const Activation a : kActivations) {
    for (const bool wrap : {true, false}) {
      rows = std::max({rows, rows_error(3, 32, 3, 3, 4, 9, wrap, a), rows_error(7, 17, 1, 5, 2, 13, wrap, a),
                       rows_error(2, 1, 4, 2, 1, 1, wrap, a), rows_error(33, 50, 2, 1, 2, 6, wrap, a)});
      tiles = std::max({tiles, tiles_error(32, 32, 9, 9, wrap, a), tiles_error(5, 70, 4, 7, wrap, a),
                        tiles_error(40, 3, 1, 2, wrap, a)});
    }
  }
  report("wtsm_conv2d, direct", rows);
  report("wtsm_conv2d, Winograd", tiles);
}
