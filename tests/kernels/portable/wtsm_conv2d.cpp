// Rows of any filter and tiles of 3x3 filters, the shift in their addresses.
#include "check.h"

#include <array>
#include <cstring>
#include <utility>

#include "cpu/shift.h"
#include "cpu/wtsm_conv2d.h"

namespace bk::portable {
#include "cpu/vec.h"
#include "cpu/wtsm_conv2d_backward_kernel.h"
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

// Tiles of a clip, by twos and threes: `count` of them from `first` on, and where they lie.
struct Tiles {
  int64_t frames, down, across, first = 0, count = 0;

  bool next() {
    first += count;
    count = std::min(1 + below(bk::kTiles), frames * down * across - first);
    return count > 0;
  }
  std::array<int64_t, 3> place(int64_t i) const {  // frame, y, x
    const int64_t tile = first + i;
    return {tile / (down * across), tile / across % down * 3, tile % across * 3};
  }
};

double tiles_error(int64_t cin, int64_t cout, int64_t height, int64_t width, bool wrap, Activation a) {
  constexpr int64_t frames = 3;
  const int64_t channels = round_up(cout, 16), pixel = round_up(cin, 16), across = (width + 2) / 3, down = (height + 2) / 3;
  Clip clip(frames, height, width, cin, 1, 3 * down + 2, 3 * across + 2, pixel, wrap);
  const Doubles w = random_filter(cout, cin, 9);
  const std::vector<float> weight(w.begin(), w.end());
  Memory packed(25 * channels * cin), bias(channels);
  bk::portable::pack_filter({cout, cin, 9, true, false}, weight.data(), packed.data(), 0, channels / 16 * cin);
  bias.fill_normal();
  Error error;
  for (Tiles t{frames, down, across}; t.next();) {
    Memory input(25 * bk::kRoom * pixel), product(25 * bk::kRoom * bk::kProduct), out(t.count * 9 * channels);
    bk::ConvTiles tiles{{t.count, {}, {clip.shift.end(0), clip.shift.end(1)}, clip.width * pixel, pixel, cin, input.data()},
                        packed.data(), bias.data(), channels, a, product.data(), {}, 3 * channels, channels};
    for (int64_t i = 0; i < t.count; ++i) {
      const auto [frame, y, x] = t.place(i);
      for (int part = 0; part < 3; ++part) tiles.in.src[i][part] = clip.window(frame, part, y, x);
      tiles.out[i] = out.data() + i * 9 * channels;
    }
    bk::portable::conv_tiles(tiles);
    for (int64_t i = 0; i < t.count * 9 * cout; ++i) {
      const auto [frame, y, x] = t.place(i / (9 * cout));
      const int64_t k = i / cout % 9, o = i % cout;
      error(out[i / cout * channels + o], activated(clip.convolved(frame, y + k / 3, x + k % 3, o, w, 3, 3, bias[o]), a));
    }
  }
  return error.value();
}

// The filter's gradient from the transformed tiles of inputs and of gradients, these behind an activation's derivative; and
// the bias's.
double filter_gradient_error(int64_t cin, int64_t cout, int64_t height, int64_t width, bool wrap, Activation a) {
  constexpr int64_t frames = 3;
  const int64_t channels = round_up(cout, 16), pixel = round_up(cin, 16), across = (width + 2) / 3, down = (height + 2) / 3;
  Clip x(frames, height, width, cin, 1, 3 * down + 2, 3 * across + 2, pixel, wrap);
  Clip dy(frames, height, width, cout, 1, 3 * down + 2, 3 * across + 2, channels, true);
  Doubles before(frames * height * width * cout);  // the gradients behind the derivative
  for (int64_t row = 0; row < frames * height; ++row) {
    Memory y(width * channels);
    float* g = dy.at(row / height, row % height + 1, 1);
    for (int64_t i = 0; i < width * channels; ++i) {
      const double value = y[i] = static_cast<float>(activated(normal(), a));
      if (i % channels >= cout) continue;
      const double slope = a == Activation::relu ? value > 0 : a == Activation::tanh ? 1 - value * value
                         : a == Activation::elu && value <= 0 ? value + 1 : 1;
      before[(row * width + i / channels) * cout + i % channels] = g[i] * slope;
    }
    bk::portable::gradient_row({{g, g, g}, {0, 0}, width, channels, channels, channels, channels, y.data(), a, g});
  }
  Memory sum(25 * cin * channels), gradient(cout * cin * 9), bias(channels);
  std::fill_n(bias.data(), channels, 0.0f);
  for (Tiles t{frames, down, across}; t.next();) {
    Memory v(25 * bk::kTiles * pixel), m(25 * bk::kTiles * channels);
    bk::TileInputs in{t.count, {}, {x.shift.end(0), x.shift.end(1)}, x.width * pixel, pixel, cin, v.data()};
    bk::TileGradients out{t.count, {}, dy.width * channels, channels, channels, m.data()};
    for (int64_t i = 0; i < t.count; ++i) {
      const auto [frame, row, column] = t.place(i);
      for (int part = 0; part < 3; ++part) in.src[i][part] = x.window(frame, part, row, column);
      out.src[i] = dy.at(frame, row + 1, column + 1);
    }
    bk::portable::tile_inputs(in);
    bk::portable::tile_gradients(out);
    for (int64_t p = 0; p < 25; ++p)
      bk::portable::outer_products({t.count, cin, channels, v.data() + p * bk::kTiles * pixel, pixel,
                                m.data() + p * bk::kTiles * channels, channels, t.first > 0, sum.data() + p * cin * channels,
                                16 * cin});
  }
  bk::portable::unpack_filter({cout, cin, 9, true, false}, sum.data(), gradient.data(), 0, channels / 16 * cin);
  bk::portable::pixel_sums({dy.at(0, 1, 1), frames, height, width, dy.height * dy.width * channels, dy.width * channels,
                        channels, 0, channels, bias.data()});
  Error error, bias_error;
  for (int64_t i = 0; i < cout * cin * 9; ++i) {
    const int64_t o = i / (cin * 9), c = i / 9 % cin, k = i % 9;
    double truth = 0;
    for (int64_t p = 0; p < frames * height * width; ++p) {
      const int64_t t = p / (height * width), row = p / width % height, column = p % width;
      truth += before[p * cout + o] * x.shifted(t, row + k / 3, column + k % 3, c);
    }
    error(gradient[i], truth);
  }
  for (int64_t o = 0; o < cout; ++o) {
    double truth = 0;
    for (int64_t p = 0; p < frames * height * width; ++p) truth += before[p * cout + o];
    bias_error(bias[o], truth);
  }
  return std::max(error.value(), bias_error.value());
}

// A turned filter is the packed form of the filter with its channels exchanged and its taps reversed; the shift's adjoint
// gathers what the shift has scattered; planes to pixels and back are the same planes.
double adjoint_error(int64_t channels, int64_t height, int64_t width, bool wrap) {
  constexpr int64_t frames = 3, other = 5;
  const int64_t pixel = round_up(channels, 16);
  Error error;
  for (const bool transformed : {true, false}) {
    const Doubles w = random_filter(channels, other, 9);
    Doubles turned(w.size());
    for (int64_t i = 0; i < channels * other * 9; ++i)
      turned[(i / 9 % other * channels + i / (9 * other)) * 9 + 8 - i % 9] = w[i];
    const std::vector<float> from(w.begin(), w.end()), to(turned.begin(), turned.end());
    Memory one(25 * 16 * channels), two(25 * 16 * channels);
    bk::portable::pack_filter({other, channels, 9, transformed, true}, from.data(), one.data(), 0, channels);
    bk::portable::pack_filter({other, channels, 9, transformed, false}, to.data(), two.data(), 0, channels);
    for (int64_t i = 0; i < (transformed ? 25 : 9) * 16 * channels; ++i) error(one[i], two[i]);
  }
  Clip g(frames, height, width, channels, 0, height, width, pixel, wrap);
  const bk::Shift adjoint{frames, channels, channels / 3, wrap, -1};
  Doubles scattered(frames * height * width * channels);
  for (int64_t i = 0; i < static_cast<int64_t>(scattered.size()); ++i) {
    const int64_t c = i % channels, p = i / channels, t = p / (height * width), row = p / width % height, column = p % width;
    const int64_t u = g.shift.source(t, c < g.shift.end(0) ? 0 : c < g.shift.end(1) ? 1 : 2);
    if (u >= 0) scattered[((u * height + row) * width + column) * channels + c] += *g.at(t, row, column, c);
  }
  for (int64_t t = 0; t < frames; ++t) {
    Memory pixels(height * width * pixel), planes(channels * height * width), again(height * width * pixel);
    for (int64_t row = 0; row < height; ++row) {
      bk::GradientRow one{{}, {adjoint.end(0), adjoint.end(1)}, width, pixel, pixel, pixel, pixel, nullptr, Activation::none,
                          pixels.data() + row * width * pixel};
      for (int part = 0; part < 3; ++part) {
        const int64_t from = adjoint.source(t, part);
        one.src[part] = g.at(from < 0 ? frames : from, row, 0);
      }
      bk::portable::gradient_row(one);
    }
    const bk::PlanesAndPixels frame{channels, height * width, height, width, width * pixel, pixel};
    bk::portable::pixels_to_planes(frame, pixels.data(), planes.data());
    bk::portable::planes_to_pixels(frame, planes.data(), again.data());
    for (int64_t i = 0; i < height * width * channels; ++i) {
      const int64_t c = i % channels, p = i / channels;
      error(planes[c * height * width + p], scattered[(t * height * width + p) * channels + c]);
      error(again[p * pixel + c], scattered[(t * height * width + p) * channels + c]);
    }
  }
  return error.value();
}

}  // namespace

void check_convolutions() {
  double rows = 0, tiles = 0, filters = 0, adjoints = 0;
  for (const bool wrap : {true, false}) {
    for (const Activation a : kActivations) {
      rows = std::max({rows, rows_error(3, 32, 3, 3, 4, 9, wrap, a), rows_error(7, 17, 1, 5, 2, 13, wrap, a),
                       rows_error(2, 1, 4, 2, 1, 1, wrap, a), rows_error(33, 50, 2, 1, 2, 6, wrap, a)});
      tiles = std::max({tiles, tiles_error(32, 32, 9, 9, wrap, a), tiles_error(5, 70, 4, 7, wrap, a),
                        tiles_error(40, 3, 1, 2, wrap, a)});
      filters = std::max({filters, filter_gradient_error(32, 32, 9, 9, wrap, a), filter_gradient_error(5, 70, 4, 7, wrap, a),
                          filter_gradient_error(40, 3, 1, 2, wrap, a)});
    }
    adjoints = std::max({adjoints, adjoint_error(32, 9, 9, wrap), adjoint_error(7, 1, 3, wrap), adjoint_error(3, 5, 2, wrap)});
  }
  report("wtsm_conv2d, direct", rows);
  report("wtsm_conv2d, Winograd", tiles);
  report("wtsm_conv2d, gradients", filters);
  report("wtsm_conv2d, adjoints", adjoints);
}
