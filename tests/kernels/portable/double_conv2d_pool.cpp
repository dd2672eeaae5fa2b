// Blocks of any size, pool and layout, their pooled rows divided between two threads' calls.
#include "check.h"

#include <array>
#include <cstring>
#include <utility>

#include "cpu/double_conv2d_pool.h"

namespace bk::portable {
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
  Memory p1(bk::kTileParts * in * round_up(mid, 16)), p2(bk::kTileParts * mid * round_up(out, 16));
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

// The gradient of sum(grad * block) with regard to each value that the block is computed from, against differences of the
// block in double: (block(v + d) - block(v - d)) / 2d, where no ReLU is near its edge.
double gradient_error(int64_t images, int64_t in, int64_t mid, int64_t out, int64_t height, int64_t width, int64_t pool,
                      int64_t bands) {
  using bk::portable::pack_winograd;
  const int64_t h = height / pool, w = width / pool, size = in * height * width;
  Memory x(images * size), grad(images * out * h * w), x_grad(images * size), b1(round_up(mid, 16)), b2(round_up(out, 16));
  x.fill_normal();
  grad.fill_normal();
  std::fill(b1.data(), b1.data() + b1.size(), 0.0f);
  std::fill(b2.data(), b2.data() + b2.size(), 0.0f);
  for (int64_t i = 0; i < mid; ++i) b1[i] = i % 2 ? 30.0f : -30.0f;  // ReLU passes all of a channel, or nothing
  for (int64_t i = 0; i < out; ++i) b2[i] = i % 3 ? 200.0f : -200.0f;
  const Doubles w1 = random_filter(mid, in, 9), w2 = random_filter(out, mid, 9);
  const std::vector<float> f1(w1.begin(), w1.end()), f2(w2.begin(), w2.end());
  const auto turned = [](const std::vector<float>& w, int64_t outs, int64_t ins) {
    std::vector<float> t(w.size());
    for (int64_t i = 0; i < static_cast<int64_t>(w.size()); ++i) t[i] = w[(i / 9 % outs * ins + i / (9 * outs)) * 9 + 8 - i % 9];
    return t;
  };
  const auto pack = [](const std::vector<float>& w, int64_t outs, int64_t ins, Memory& to) {
    pack_winograd(w.data(), outs, ins, to.data(), 0, round_up(outs, 16) / 16 * ins);
  };
  Memory p1(bk::kTileParts * in * round_up(mid, 16)), p2(bk::kTileParts * mid * round_up(out, 16));
  Memory t1(bk::kTileParts * round_up(in, 16) * mid), t2(bk::kTileParts * round_up(mid, 16) * out);
  pack(f1, mid, in, p1);
  pack(f2, out, mid, p2);
  pack(turned(f1, mid, in), in, mid, t1);
  pack(turned(f2, out, mid), mid, out, t2);
  const auto strides = [](int64_t c, int64_t rows, int64_t columns) -> std::array<int64_t, 4> {
    return {c * rows * columns, rows * columns, columns, 1};
  };
  const bk::DoubleConv2dPoolBackward call{grad.data(), x.data(), x_grad.data(), strides(out, h, w), strides(in, height, width),
                                          strides(in, height, width), in, mid, out, height, width, pool, bands, true,
                                          p1.data(), p2.data(), t1.data(), t2.data(), b1.data(), b2.data()};
  const int64_t sizes[] = {mid * in * 9, mid, out * mid * 9, out}, all = sizes[0] + mid + sizes[2] + out;
  Memory space(bk::portable::block_backward_workspace(call)), parts(2 * all);
  const int64_t cut = 1 + below(images * bands);
  bk::portable::block_gradients(call, space.data(), 0, cut, parts.data());
  bk::portable::block_gradients(call, space.data(), cut, images * bands, parts.data() + all);

  Doubles values(w1), found;  // weight1, bias1, weight2, bias2, x
  values.insert(values.end(), b1.data(), b1.data() + mid);
  values.insert(values.end(), w2.begin(), w2.end());
  values.insert(values.end(), b2.data(), b2.data() + out);
  for (int64_t i = 0; i < all; ++i) found.push_back(parts[i] + parts[all + i]);
  for (int64_t i = 0; i < images * size; ++i) found.push_back(x_grad[i]);
  values.insert(values.end(), x.data(), x.data() + images * size);
  const auto loss = [&](const Doubles& v) {
    const double* at = v.data();
    const Doubles a1(at, at + sizes[0]), a2(at + sizes[0] + mid, at + sizes[0] + mid + sizes[2]);
    std::vector<float> c1(at + sizes[0], at + sizes[0] + mid), c2(at + all - out, at + all);
    double sum = 0;
    for (int64_t n = 0; n < images; ++n) {
      const Doubles picture(at + all + n * size, at + all + (n + 1) * size);
      const Doubles y = conv_relu(conv_relu(picture, in, height, width, a1, mid, c1.data()), mid, height, width, a2, out, c2.data());
      for (int64_t i = 0; i < out * height * width; ++i) {
        const int64_t c = i / (height * width), row = i / width % height / pool, column = i % width / pool;
        if (row < h && column < w) sum += y[i] * grad[((n * out + c) * h + row) * w + column] / static_cast<double>(pool * pool);
      }
    }
    return sum;
  };
  // A piecewise linear loss in each value by itself, so that any step is exact; some values of each kind are tried.
  const int64_t starts[] = {0, sizes[0], sizes[0] + mid, all - out, all, all + images * size};
  double worst = 0;
  for (int kind = 0; kind < 5; ++kind) {
    Error error;
    for (int64_t i = starts[kind]; i < starts[kind + 1]; ++i) error(found[i], found[i]);  // their scale
    for (int tries = 0; tries < 12; ++tries) {
      const int64_t i = starts[kind] + below(starts[kind + 1] - starts[kind]);
      Doubles more = values, less = values;
      more[i] += 0.25;
      less[i] -= 0.25;
      error(found[i], (loss(more) - loss(less)) / 0.5);
    }
    worst = std::max(worst, error.value());
  }
  return worst;
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
  worst = 0;
  for (const auto& c : cases) {
    for (const int64_t bands : {1, 3}) worst = std::max(worst, gradient_error(c[0], c[1], c[2], c[3], c[4], c[5], c[6], bands));
  }
  report("double_conv2d_pool back", worst);
}
