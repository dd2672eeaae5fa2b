// Blocks of any size, pool and layout, their pooled rows divided between two threads' calls.
#include "check.h"

#include <array>
#include <cstring>
#include <utility>

#include "cpu/double_conv2d_pool.h"

namespace bk::portable {
#define BK_LANES 4
#include "cpu/vec.h"
#include "cpu/double_conv2d_pool_kernel.h"
}  // namespace bk::portable

namespace {

// (c, h, w) -> ReLU of a 3x3 convolution of it, padded by zeros.
Doubles conv_relu(const Doubles& x, int64_t in, int64_t height, int64_t width, const Doubles& w, int64_t out, float* bias) {
  Doubles y(out * height * width);
  for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
    const int64_t o = i / (height * width), row = i / width % height, column = i % width;
    double sum = bias[o];
    for (int64_t c = 0; c < in; ++c) {
      for (int64_t k = 0; k < 9; ++k) {
        const int64_t r = row + k / 3 - 1, q = column + k % 3 - 1;
        if (r >= 0 && r < height && q >= 0 && q < width) sum += x[(c * height + r) * width + q] * w[(o * in + c) * 9 + k];
      }
    }
    y[i] = std::max(sum, 0.0);
  }
  return y;
}

double block_error(int64_t images, int64_t in, int64_t mid, int64_t out, int64_t height, int64_t width, int64_t pool,
                   int layout) {
  using bk::portable::pack_winograd;
  const int64_t h = height / pool, w = width / pool;
  // Contiguous, channels_last, or every second pixel of the rows of a wider picture.
  const auto strides = [layout](int64_t c, int64_t rows, int64_t columns) -> std::array<int64_t, 4> {
    if (layout == 0) return {c * rows * columns, rows * columns, columns, 1};
    if (layout == 1) return {c * rows * columns, 1, c * columns, c};
    return {c * rows * (2 * columns + 3), rows * (2 * columns + 3), 2 * columns + 3, 2};
  };
  const std::array<int64_t, 4> xs = strides(in, height, width), ys = strides(out, h, w);
  Memory x(images * xs[0]), y(images * ys[0]), b1(round_up(mid, 16)), b2(round_up(out, 16));
  b1.fill_normal();
  b2.fill_normal();
  std::fill(b1.data() + mid, b1.data() + b1.size(), 0.0f);
  std::fill(b2.data() + out, b2.data() + b2.size(), 0.0f);
  const Doubles w1 = random_filter(mid, in, 9), w2 = random_filter(out, mid, 9);
  const std::vector<float> f1(w1.begin(), w1.end()), f2(w2.begin(), w2.end());
  const bool direct = in <= bk::kDirect;
  Memory p1((direct ? 9 : 36) * in * round_up(mid, 16)), p2(36 * mid * round_up(out, 16));
  if (direct)
    pack_direct(w1, mid, in, 9, p1.data());
  else
    pack_winograd(f1.data(), mid, in, p1.data(), 0, round_up(mid, 16) / 16 * in);
  pack_winograd(f2.data(), out, mid, p2.data(), 0, round_up(out, 16) / 16 * mid);
  std::vector<Doubles> pictures(images, Doubles(in * height * width));
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t i = 0; i < in * height * width; ++i) {
      const int64_t at = n * xs[0] + i / (height * width) * xs[1] + i / width % height * xs[2] + i % width * xs[3];
      pictures[n][i] = x[at] = static_cast<float>(normal());
    }
  }
  const bk::DoubleConv2dPool call{x.data(), y.data(), xs, ys, in, mid, out, height, width, pool,
                                  p1.data(), p2.data(), b1.data(), b2.data()};
  Memory space(bk::portable::block_workspace(call));
  const int64_t cut = 1 + below(images * h);  // as two threads share it
  bk::portable::block_rows(call, space.data(), 0, cut);
  bk::portable::block_rows(call, space.data(), cut, images * h);
  Error error;
  for (int64_t n = 0; n < images; ++n) {
    const Doubles second = conv_relu(conv_relu(pictures[n], in, height, width, w1, mid, b1.data()), mid, height, width, w2,
                                     out, b2.data());
    for (int64_t i = 0; i < out * h * w; ++i) {
      const int64_t c = i / (h * w), row = i / w % h, column = i % w;
      double sum = 0;
      for (int64_t k = 0; k < pool * pool; ++k)
        sum += second[(c * height + row * pool + k / pool) * width + column * pool + k % pool];
      error(y[n * ys[0] + c * ys[1] + row * ys[2] + column * ys[3]], sum / static_cast<double>(pool * pool));
    }
  }
  return error.value();
}

}  // namespace

void check_blocks() {
  constexpr int64_t cases[][7] = {{1, 3, 32, 32, 24, 48, 2}, {2, 32, 17, 33, 13, 12, 3}, {1, 20, 16, 16, 12, 16, 4},
                                  {3, 1, 1, 1, 1, 1, 1},     {1, 5, 7, 3, 9, 170, 7},    {2, 4, 33, 2, 17, 23, 1},
                                  {1, 2, 5, 16, 40, 7, 5},   {1, 16, 4, 18, 21, 22, 20}};
  double worst = 0;
  for (const auto& c : cases) {
    for (int layout = 0; layout < 3; ++layout)
      worst = std::max(worst, block_error(c[0], c[1], c[2], c[3], c[4], c[5], c[6], layout));
  }
  report("double_conv2d_pool", worst);
}
