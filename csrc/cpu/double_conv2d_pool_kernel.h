// The arithmetic of double_conv2d_pool for one instruction set (included by each_isa.h).
//
// A thread walks down an image a few tile rows at a time (a tile is 4x4 outputs): it copies the rows it needs, computes
// the first convolution's rows, the second's, and pools them, all in a workspace of its own that L2 holds. Rows are
// channels last, in rings: the first convolution runs one tile row ahead of the second, and nothing is computed twice
// except where two threads' parts of one image meet. Every output depends on its own tile alone, never on how the work
// was divided.
//
// The convolutions are Winograd's F(4x4, 3x3): input tiles of 6x6 are transformed, multiplied as 36 matrix products
// over the channels, and transformed back, with a quarter of the multiplications. A NaN or infinity therefore reaches
// all outputs of its tile and not only its own nine. Images of up to kDirect channels (RGB) are convolved directly.

namespace {

constexpr int kTiles = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 5;  // tiles times two vectors of outputs fill the registers
constexpr int64_t kStep = 48;                                    // tiles that go through the transforms together

BK_INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
BK_INLINE int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }
BK_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A ring of image rows, channels last, with `border` zero pixels on the left.
struct Rows {
  float* data;
  int64_t count, size, pixel, border;  // rows, floats of a row, floats of a pixel

  float* row(int64_t r) const { return data + (r + count) % count * size; }  // r >= -1
  float* at(int64_t r, int64_t x) const { return row(r) + (x + border) * pixel; }
  void zero(int64_t r) const { __builtin_memset(row(r), 0, size * sizeof(float)); }
};

struct Layer {
  const float *filter, *bias;
  int64_t in, out;
};

// --- Winograd ---------------------------------------------------------------------------------------------------------

// B^T d for the points 0, 1, -1, 2, -2, infinity.
BK_INLINE void input_transform(const V* d, int64_t step, V* t, int64_t t_step) {
  const V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  const V a = d4 - 4.f * d2, b = d3 - 4.f * d1, c = d4 - d2, e = d3 - d1;
  t[0] = 4.f * d0 - 5.f * d2 + d4;
  t[t_step] = a + b;
  t[2 * t_step] = a - b;
  t[3 * t_step] = c + 2.f * e;
  t[4 * t_step] = c - 2.f * e;
  t[5 * t_step] = 4.f * d1 - 5.f * d3 + d5;
}

// A^T m.
BK_INLINE void output_transform(const V* m, int64_t step, V* y, int64_t y_step) {
  const V m0 = m[0], m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step], m5 = m[5 * step];
  const V a = m1 + m2, b = m1 - m2, c = m3 + m4, e = m3 - m4;
  y[0] = m0 + a + c;
  y[y_step] = b + 2.f * e;
  y[2 * y_step] = a + 4.f * c;
  y[3 * y_step] = b + 8.f * e + m5;
}

// Transformed tiles: [36][vectors of channels][tiles][kLanes].
struct Transformed {
  float* data;
  int64_t tiles, vectors;

  // An odd number of cache lines between the 36 parts, so that they do not meet in the same sets.
  int64_t part() const { return (tiles * vectors | 1) * kLanes; }
  float* at(int64_t p, int64_t vector, int64_t tile) const { return data + p * part() + (vector * tiles + tile) * kLanes; }
};

void transform_tile(const float* const* rows, int64_t pixel, const Transformed& to, int64_t tile) {
  for (int64_t c = 0; c < to.vectors; ++c) {
    V t[36];
    for (int j = 0; j < 6; ++j) {
      V d[6];
      for (int i = 0; i < 6; ++i) d[i] = load(rows[i] + j * pixel + c * kLanes);
      input_transform(d, 1, t + j, 6);
    }
    float* v = to.at(0, c, tile);
    for (int i = 0; i < 6; ++i) {
      V u[6];
      input_transform(t + 6 * i, 1, u, 1);
      for (int j = 0; j < 6; ++j) store(v + (6 * i + j) * to.part(), u[j]);
    }
  }
}

// T tiles times N vectors of output channels; `u` holds the filter of each vector.
template <int T, int N>
void product(const float* v, int64_t v_step, const float* const* u, float* m, int64_t m_step, int64_t channels) {
  V sum[T][N] = {};
  const float* w[N];
  for (int n = 0; n < N; ++n) w[n] = u[n];
  for (; channels > 0; channels -= kLanes, v += v_step) {
    const int64_t stop = lesser(channels, kLanes);
    for (int64_t k = 0; k < stop; ++k) {
      V f[N];
      for (int n = 0; n < N; ++n) {
        f[n] = load(w[n]);
        w[n] += 16;
      }
      for (int t = 0; t < T; ++t) {
        const V s = splat(v[t * kLanes + k]);
        for (int n = 0; n < N; ++n) sum[t][n] += s * f[n];
      }
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int t = 0; t < T; ++t) store(m + n * m_step + t * kLanes, sum[t][n]);
  }
}

using Product = void (*)(const float*, int64_t, const float* const*, float*, int64_t, int64_t);
template <int N, int T>
Product product_of(int64_t tiles) {
  if constexpr (T > 1) {
    if (tiles < T) return product_of<N, T - 1>(tiles);
  }
  return &product<T, N>;
}

// The 36 matrix products of a block of tiles.
void multiply(const Transformed& v, const Layer& layer, const Transformed& m) {
  const int64_t groups = ceil_div(v.tiles, kTiles), blocks = ceil_div(layer.out, 16);
  for (int64_t p = 0; p < 36; ++p) {
    for (int64_t n = 0; n < m.vectors;) {
      const int64_t some = lesser(2, m.vectors - n);
      const float* u[2];
      for (int64_t i = 0; i < some; ++i) {
        const int64_t channel = (n + i) * kLanes;
        u[i] = layer.filter + ((p * blocks + channel / 16) * layer.in) * 16 + channel % 16;
      }
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t first = v.tiles * g / groups, count = v.tiles * (g + 1) / groups - first;
        const Product product = some == 2 ? product_of<2, kTiles>(count) : product_of<1, kTiles>(count);
        product(v.at(p, 0, first), v.tiles * kLanes, u, m.at(p, n, first), m.tiles * kLanes, layer.in);
      }
      n += some;
    }
  }
}

// Transforms back, adds the bias, applies ReLU; the first `height` x `width` pixels of the tile, zeros in the rest.
void untransform_tile(const Transformed& from, int64_t tile, const float* bias, float* const* rows, int64_t pixel,
                      int64_t height, int64_t width) {
  for (int64_t c = 0; c < from.vectors; ++c) {
    V t[24];
    const float* m = from.at(0, c, tile);
    for (int j = 0; j < 6; ++j) {
      V d[6];
      for (int i = 0; i < 6; ++i) d[i] = load(m + (6 * i + j) * from.part());
      output_transform(d, 1, t + j, 6);
    }
    const V b = load(bias + c * kLanes);
    for (int i = 0; i < 4; ++i) {
      V y[4];
      output_transform(t + 6 * i, 1, y, 1);
      for (int j = 0; j < 4; ++j) {
        store(rows[i] + j * pixel + c * kLanes, i < height && j < width ? relu(y[j] + b) : V{});
      }
    }
  }
}

// Tile rows [first, last) of a convolution with ReLU.
void winograd(const Layer& layer, const Rows& from, const Rows& to, int64_t first, int64_t last, int64_t height,
              int64_t width, float* v_space, float* m_space) {
  const int64_t columns = ceil_div(width, 4), all = (last - first) * columns, blocks = ceil_div(all, kStep);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = all * b / blocks, end = all * (b + 1) / blocks;
    const Transformed v{v_space, end - begin, ceil_div(layer.in, kLanes)};
    const Transformed m{m_space, end - begin, ceil_div(layer.out, 16) * (16 / kLanes)};
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = (first + i / columns) * 4, x = i % columns * 4;
      const float* rows[6];
      for (int r = 0; r < 6; ++r) rows[r] = from.at(y + r - 1, x - 1);
      transform_tile(rows, from.pixel, v, i - begin);
    }
    multiply(v, layer, m);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = (first + i / columns) * 4, x = i % columns * 4;
      float* rows[4];
      for (int r = 0; r < 4; ++r) rows[r] = to.at(y + r, x);
      untransform_tile(m, i - begin, layer.bias, rows, to.pixel, height - y, width - x);
    }
  }
}

// --- the direct convolution of few channels ---------------------------------------------------------------------------

// kTiles pixels of a row times N vectors of output channels, from rows of C channels a pixel.
template <int C, int N>
BK_INLINE void direct_pixels(const float* const* rows, const float* u, int64_t u_step, const float* bias, float* to,
                             int64_t pixel, int64_t valid) {
  V sum[kTiles][N];
  for (int n = 0; n < N; ++n) {
    for (int t = 0; t < kTiles; ++t) sum[t][n] = load(bias + n * kLanes);
  }
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < 3 * C; ++k, u += 16) {
      V f[N];
      for (int n = 0; n < N; ++n) f[n] = load(u + n * u_step);
      for (int t = 0; t < kTiles; ++t) {
        const V s = splat(rows[i][t * C + k]);
        for (int n = 0; n < N; ++n) sum[t][n] += s * f[n];
      }
    }
  }
  for (int t = 0; t < kTiles; ++t) {
    if (t >= valid) break;
    for (int n = 0; n < N; ++n) store(to + t * pixel + n * kLanes, relu(sum[t][n]));
  }
}

template <int C>
void direct_row(const Layer& layer, const Rows& from, const Rows& to, int64_t y, int64_t width) {
  constexpr int64_t kBlock = 9 * C * 16;  // a filter's floats for 16 output channels
  const int64_t vectors = ceil_div(layer.out, 16) * (16 / kLanes);
  for (int64_t x = 0; x < width; x += kTiles) {
    const float* rows[3];
    for (int i = 0; i < 3; ++i) rows[i] = from.at(y + i - 1, x - 1);
    for (int64_t n = 0; n < vectors; n += 2) {
      const int64_t channel = n * kLanes;
      const float* u = layer.filter + channel / 16 * kBlock + channel % 16;
      const float* bias = layer.bias + channel;
      float* out = to.at(y, x) + channel;
      if (n + 1 < vectors)
        direct_pixels<C, 2>(rows, u, kLanes == 16 ? kBlock : kLanes, bias, out, to.pixel, width - x);
      else
        direct_pixels<C, 1>(rows, u, 0, bias, out, to.pixel, width - x);
    }
  }
  __builtin_memset(to.at(y, width), 0, (to.row(y) + to.size - to.at(y, width)) * sizeof(float));
}

void direct(const Layer& layer, const Rows& from, const Rows& to, int64_t first, int64_t last, int64_t height,
            int64_t width) {
  for (int64_t y = 4 * first; y < 4 * last; ++y) {
    if (y >= height)
      to.zero(y);
    else if (layer.in == 1)
      direct_row<1>(layer, from, to, y, width);
    else if (layer.in == 2)
      direct_row<2>(layer, from, to, y, width);
    else if (layer.in == 3)
      direct_row<3>(layer, from, to, y, width);
    else
      direct_row<4>(layer, from, to, y, width);
  }
}

// --- between the tensors and the workspace ----------------------------------------------------------------------------

// kLanes channels of kLanes neighbouring values between planes and pixels; only the first `channels` are there.
BK_INLINE void planes_to_pixels(const float* planes, int64_t plane, int64_t channels, float* pixels, int64_t pixel) {
  V v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = i < channels ? load(planes + i * plane) : V{};
  transpose(v);
  for (int i = 0; i < kLanes; ++i) store(pixels + i * pixel, v[i]);
}
BK_INLINE void pixels_to_planes(const float* pixels, int64_t pixel, int64_t channels, float* planes, int64_t plane) {
  V v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = load(pixels + i * pixel);
  transpose(v);
  for (int i = 0; i < kLanes; ++i) {
    if (i < channels) store(planes + i * plane, v[i]);
  }
}

// Row r of an image into the workspace, zeros outside.
void stage(const DoubleConv2dPool& a, const float* image, const Rows& to, int64_t r) {
  to.zero(r);
  if (r < 0 || r >= a.height) return;
  const float* from = image + r * a.x_stride[2];
  const int64_t sc = a.x_stride[1], sw = a.x_stride[3];
  int64_t x = 0;
  if (sc == 1) {
    for (; x < a.width; ++x) __builtin_memcpy(to.at(r, x), from + x * sw, a.in * sizeof(float));
  } else if (sw == 1 && to.pixel % kLanes == 0) {
    for (; x + kLanes <= a.width; x += kLanes) {
      for (int64_t c = 0; c < a.in; c += kLanes)
        planes_to_pixels(from + c * sc + x, sc, a.in - c, to.at(r, x) + c, to.pixel);
    }
  }
  for (; x < a.width; ++x) {
    float* pixel = to.at(r, x);
    for (int64_t c = 0; c < a.in; ++c) pixel[c] = from[c * sc + x * sw];
  }
}

// Adds row y of the second convolution to the sums of its pooled row.
void add_row(const DoubleConv2dPool& a, const Rows& rows, int64_t y, float* sums) {
  const int64_t width = a.width / a.pool;
  const bool first = y % a.pool == 0;
  for (int64_t x = 0; x < width; ++x) {
    const float* from = rows.at(y, x * a.pool);
    for (int64_t c = 0; c < rows.pixel; c += kLanes) {
      V sum = load(from + c);
      for (int64_t i = 1; i < a.pool; ++i) sum += load(from + i * rows.pixel + c);
      float* to = sums + x * rows.pixel + c;
      store(to, first ? sum : load(to) + sum);
    }
  }
}

// A pooled row to the output.
void emit(const DoubleConv2dPool& a, float* sums, int64_t pixel, float* to) {
  const int64_t width = a.width / a.pool, sc = a.y_stride[1], sw = a.y_stride[3];
  const float scale = 1.f / (static_cast<float>(a.pool) * static_cast<float>(a.pool));
  for (int64_t i = 0; i < width * pixel; i += kLanes) store(sums + i, load(sums + i) * scale);
  int64_t x = 0;
  if (sc == 1) {
    for (; x < width; ++x) __builtin_memcpy(to + x * sw, sums + x * pixel, a.out * sizeof(float));
  } else if (sw == 1) {
    for (; x + kLanes <= width; x += kLanes) {
      for (int64_t c = 0; c < a.out; c += kLanes)
        pixels_to_planes(sums + x * pixel + c, pixel, a.out - c, to + c * sc + x, sc);
    }
  }
  for (; x < width; ++x) {
    for (int64_t c = 0; c < a.out; ++c) to[c * sc + x * sw] = sums[x * pixel + c];
  }
}

// --- one thread's part ------------------------------------------------------------------------------------------------

struct Workspace {
  int64_t step;  // tile rows that go through together
  Rows x, mid, y;
  float *sums, *v, *m;
  int64_t size;  // floats of it all

  Workspace(const DoubleConv2dPool& a, float* base) : size(0) {
    const int64_t columns = ceil_div(a.width, 4), rows = ceil_div(a.height, 4);
    const int64_t steps = ceil_div(rows, greater(1, kStep / columns));
    step = ceil_div(rows, steps);
    const auto take = [&](int64_t n) {
      float* p = base + size;
      size += ceil_div(n, 16) * 16;
      return p;
    };
    const auto ring = [&](int64_t count, int64_t pixels, int64_t pixel, int64_t border) {
      return Rows{take(count * pixels * pixel), count, pixels * pixel, pixel, border};
    };
    const int64_t mid_pixel = ceil_div(a.mid, 16) * 16, y_pixel = ceil_div(a.out, 16) * 16;
    if (a.in <= kDirect)
      x = ring(4 * step + 4, ceil_div(4 * columns, kTiles) * kTiles + 2, a.in, 1);
    else
      x = ring(4 * step + 4, 4 * columns + 2, ceil_div(a.in, 16) * 16, 1);
    mid = ring(4 * step + 8, 4 * columns + 2, mid_pixel, 1);
    y = ring(4 * step, 4 * columns, y_pixel, 0);
    sums = take(a.width / a.pool * y_pixel);
    const int64_t tiles = lesser(kStep, step * columns);
    v = take(36 * (tiles * greater(x.pixel, mid_pixel) + 16));
    m = take(36 * (tiles * greater(mid_pixel, y_pixel) + 16));
  }
};

void image_rows(const DoubleConv2dPool& a, const Workspace& w, int64_t image, int64_t begin, int64_t end) {
  const Layer one{a.filter1, a.bias1, a.in, a.mid}, two{a.filter2, a.bias2, a.mid, a.out};
  const float* x = a.x + image * a.x_stride[0];
  float* y = a.y + image * a.y_stride[0];
  const int64_t rows = ceil_div(a.height, 4), last = ceil_div(end * a.pool, 4);
  int64_t t = begin * a.pool / 4, mid_next = t - 1, x_next = greater(4 * mid_next, 0) - 1;
  while (t < last) {
    const int64_t stop = lesser(t + w.step, last);
    while (mid_next <= stop) {  // the second convolution reads one tile row more on each side
      int64_t mid_stop = mid_next + 1;
      if (mid_next < 0 || mid_next >= rows) {
        for (int64_t r = 4 * mid_next; r < 4 * mid_stop; ++r) {
          if (r >= -1) w.mid.zero(r);
        }
      } else {
        mid_stop = lesser(lesser(mid_next + w.step, stop + 1), rows);
        for (; x_next <= 4 * mid_stop; ++x_next) stage(a, x, w.x, x_next);
        if (a.in <= kDirect)
          direct(one, w.x, w.mid, mid_next, mid_stop, a.height, a.width);
        else
          winograd(one, w.x, w.mid, mid_next, mid_stop, a.height, a.width, w.v, w.m);
      }
      mid_next = mid_stop;
    }
    winograd(two, w.mid, w.y, t, stop, a.height, a.width, w.v, w.m);
    for (int64_t r = greater(4 * t, begin * a.pool); r < lesser(4 * stop, end * a.pool); ++r) {
      add_row(a, w.y, r, w.sums);
      if ((r + 1) % a.pool == 0) emit(a, w.sums, w.y.pixel, y + r / a.pool * a.y_stride[2]);
    }
    t = stop;
  }
}

}  // namespace

// Floats of workspace a thread needs.
int64_t block_workspace(const DoubleConv2dPool& a) { return Workspace(a, nullptr).size; }

// Pooled rows [begin, end), counted through all images.
void block_rows(const DoubleConv2dPool& a, float* space, int64_t begin, int64_t end) {
  const Workspace w(a, space);
  for (int64_t r = 0; r < w.mid.count; ++r) {  // its left border is written nowhere else
    __builtin_memset(w.mid.row(r), 0, w.mid.pixel * sizeof(float));
    __builtin_memset(w.mid.row(r) + w.mid.size - w.mid.pixel, 0, w.mid.pixel * sizeof(float));
  }
  const int64_t height = a.height / a.pool;
  while (begin < end) {
    const int64_t image = begin / height, row = begin % height, rows = lesser(height - row, end - begin);
    image_rows(a, w, image, row, row + rows);
    begin += rows;
  }
}

// Filters (out, in, 3, 3), contiguous, to [36][ceil(out / 16)][in][16] in the Winograd domain, zero beyond `out`.
void pack_winograd(const float* weight, int64_t out, int64_t in, float* packed) {
  static const double g[6][3] = {{1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                 {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};
  const int64_t blocks = ceil_div(out, 16);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t c = 0; c < in; ++c) {
      double w[9][16] = {}, t[18][16];
      for (int64_t o = 0; o < lesser(16, out - 16 * block); ++o) {
        for (int k = 0; k < 9; ++k) w[k][o] = weight[((16 * block + o) * in + c) * 9 + k];
      }
      for (int i = 0; i < 6; ++i) {
        for (int k = 0; k < 3; ++k) {
          for (int o = 0; o < 16; ++o) t[3 * i + k][o] = g[i][0] * w[k][o] + g[i][1] * w[3 + k][o] + g[i][2] * w[6 + k][o];
        }
      }
      for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 6; ++j) {
          float* u = packed + (((6 * i + j) * blocks + block) * in + c) * 16;
          const double(*r)[16] = t + 3 * i;
          for (int o = 0; o < 16; ++o) u[o] = static_cast<float>(r[0][o] * g[j][0] + r[1][o] * g[j][1] + r[2][o] * g[j][2]);
        }
      }
    }
  }
}
