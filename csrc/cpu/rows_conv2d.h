// 3x3 convolutions from rows of images to tiles: Winograd's F(4x4, 3x3), and directly for few channels. Included inside
// the namespace of each instruction set, after image_rows.h.
//
// Input tiles of 6x6 are transformed, multiplied as 36 matrix products over the channels, and transformed back, with a
// quarter of the multiplications. A NaN or infinity therefore reaches all outputs of its tile and not only its own nine.
// Images of up to kDirect channels (RGB) are convolved directly.

namespace {

constexpr int kTiles = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 5;  // tiles times two vectors of outputs fill the registers
constexpr int64_t kStep = 3 * kTiles;  // tiles that go through the transforms together: they stay in L2 (half a MB with AVX2)

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

// Transformed tiles in groups of up to kTiles: [group][vectors of channels][36][kTiles][kLanes]. The 36 parts of a tile
// lie near each other (few pages) and an odd number of cache lines apart (in different sets).
struct Transformed {
  static constexpr int64_t kPart = (kTiles | 1) * kLanes, kVector = 36 * kPart;
  float* data;
  int64_t vectors;

  float* at(int64_t group, int64_t vector) const { return data + (group * vectors + vector) * kVector; }
};

void transform_tile(const float* const* rows, int64_t pixel, int64_t vectors, float* to) {
  for (int64_t c = 0; c < vectors; ++c, to += Transformed::kVector) {
    V t[36];
    for (int j = 0; j < 6; ++j) {
      V d[6];
      for (int i = 0; i < 6; ++i) d[i] = load(rows[i] + j * pixel + c * kLanes);
      input_transform(d, 1, t + j, 6);
    }
    for (int i = 0; i < 6; ++i) {
      V u[6];
      input_transform(t + 6 * i, 1, u, 1);
      for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * Transformed::kPart, u[j]);
    }
  }
}

// T tiles times N vectors of output channels; `u` holds the filter of each vector.
template <int T, int N>
void product(const float* v, const float* const* u, float* m, int64_t channels) {
  V sum[T][N];
  const float* w[N];
  for (int n = 0; n < N; ++n) {
    w[n] = u[n];
    for (int t = 0; t < T; ++t) sum[t][n] = V{};
  }
  for (; channels > 0; channels -= kLanes, v += Transformed::kVector) {
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
    for (int t = 0; t < T; ++t) store(m + n * Transformed::kVector + t * kLanes, sum[t][n]);
  }
}

using Product = void (*)(const float*, const float* const*, float*, int64_t);
template <int N, int T>
Product product_of(int64_t tiles) {
  if constexpr (T > 1) {
    if (tiles < T) return product_of<N, T - 1>(tiles);
  }
  return &product<T, N>;
}

// Tiles that go through the transforms together, in groups as even as possible: those from the one numbered `begin`, of
// `columns` in a row, from the tile row `top` on.
struct Tiles {
  int64_t count, groups, begin, top, columns;

  Tiles(int64_t n, int64_t begin, int64_t top, int64_t columns)
      : count(n), groups(ceil_div(n, kTiles)), begin(begin), top(top), columns(columns) {}
  int64_t first(int64_t group) const { return count * group / groups; }
  int64_t size(int64_t group) const { return first(group + 1) - first(group); }

  // f(group, tile of the group, its upper row of outputs, its left column)
  template <class F>
  BK_INLINE void each(const F& f) const {
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t i = 0; i < size(g); ++i) {
        const int64_t tile = begin + first(g) + i;
        f(g, i, (top + tile / columns) * 4, tile % columns * 4);
      }
    }
  }
};

// The tiles' inputs, from rows.
void transform(const Tiles& tiles, const Rows& from, const Transformed& v) {
  tiles.each([&](int64_t g, int64_t i, int64_t y, int64_t x) {
    const float* rows[6];
    for (int r = 0; r < 6; ++r) rows[r] = from.at(y + r - 1, x - 1);
    transform_tile(rows, from.pixel, v.vectors, v.at(g, 0) + i * kLanes);
  });
}

// The 36 matrix products.
void multiply(const Tiles& tiles, const Transformed& v, const Layer& layer, const Transformed& m) {
  const int64_t blocks = ceil_div(layer.out, 16);
  for (int64_t p = 0; p < 36; ++p) {
    for (int64_t n = 0; n < m.vectors; n += 2) {
      const bool pair = n + 1 < m.vectors;
      const float* u[2];
      for (int64_t i = 0; i < 1 + pair; ++i) {
        const int64_t channel = (n + i) * kLanes;
        u[i] = layer.filter + ((p * blocks + channel / 16) * layer.in) * 16 + channel % 16;
      }
      for (int64_t g = 0; g < tiles.groups; ++g) {
        const Product product = pair ? product_of<2, kTiles>(tiles.size(g)) : product_of<1, kTiles>(tiles.size(g));
        product(v.at(g, 0) + p * Transformed::kPart, u, m.at(g, n) + p * Transformed::kPart, layer.in);
      }
    }
  }
}

// Transforms back.
BK_INLINE void untransform(const float* from, V* y) {
  V t[24];
  for (int j = 0; j < 6; ++j) {
    V d[6];
    for (int i = 0; i < 6; ++i) d[i] = load(from + (6 * i + j) * Transformed::kPart);
    output_transform(d, 1, t + j, 6);
  }
  for (int i = 0; i < 4; ++i) output_transform(t + 6 * i, 1, y + 4 * i, 1);
}

// Transforms back, adds the bias, applies ReLU.
BK_INLINE void untransform_relu(const float* from, const float* bias, V* y) {
  untransform(from, y);
  const V b = load(bias);
  for (int i = 0; i < 16; ++i) y[i] = relu(y[i] + b);
}

// Where the first convolution puts its tiles: rows, zero beyond the image.
struct ToRows {
  Rows rows;
  int64_t height, width;

  void operator()(const float* from, int64_t vectors, const float* bias, int64_t y, int64_t x) const {
    float* to[4];
    for (int i = 0; i < 4; ++i) to[i] = rows.at(y + i, x);
    for (int64_t c = 0; c < vectors; ++c, from += Transformed::kVector) {
      V v[16];
      untransform_relu(from, bias + c * kLanes, v);
      for (int i = 0; i < 16; ++i) {
        const bool inside = y + i / 4 < height && x + i % 4 < width;
        store(to[i / 4] + i % 4 * rows.pixel + c * kLanes, inside ? v[i] : V{});
      }
    }
  }

  void done(const Tiles&, const Transformed&, const Transformed&) const {}
};

// Tile rows [first, last) of a convolution. `to` takes every tile's products, and `done` all of them with their inputs.
template <class To>
void winograd(const Layer& layer, const Rows& from, const To& to, int64_t first, int64_t last, int64_t width,
              float* v_space, float* m_space) {
  const int64_t columns = ceil_div(width, 4), all = (last - first) * columns, blocks = ceil_div(all, kStep);
  const Transformed v{v_space, ceil_div(layer.in, kLanes)}, m{m_space, ceil_div(layer.out, 16) * (16 / kLanes)};
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = all * b / blocks;
    const Tiles tiles(all * (b + 1) / blocks - begin, begin, first, columns);
    transform(tiles, from, v);
    multiply(tiles, v, layer, m);
    tiles.each([&](int64_t g, int64_t i, int64_t y, int64_t x) {
      to(m.at(g, 0) + i * kLanes, m.vectors, layer.bias, y, x);
    });
    to.done(tiles, v, m);
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
      const float* row = rows[i] + k;
      __asm__("" : "+r"(row));  // else GCC carries values from k to k + C, in registers it does not have
      for (int t = 0; t < kTiles; ++t) {
        const V s = splat(row[t * C]);
        for (int n = 0; n < N; ++n) sum[t][n] += s * f[n];
      }
    }
  }
  for (int t = 0; t < kTiles; ++t) {
    for (int n = 0; n < N && t < valid; ++n) store(to + t * pixel + n * kLanes, relu(sum[t][n]));
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

// Filters (out, in, 3, 3), contiguous, to [36][ceil(out / 16)][in][16] in the Winograd domain, zero beyond `out`: the
// inputs [begin, end), counted through all blocks of 16 outputs.
void pack_winograd(const float* weight, int64_t out, int64_t in, float* packed, int64_t begin, int64_t end) {
  static const double g[6][3] = {{1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                 {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};
  const int64_t blocks = ceil_div(out, 16);
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = u / in * 16, c = u % in;
    double w[9][16] = {}, t[18][16];
    for (int64_t o = 0; o < lesser(16, out - first); ++o) {
      for (int k = 0; k < 9; ++k) w[k][o] = weight[((first + o) * in + c) * 9 + k];
    }
    for (int i = 0; i < 6; ++i) {
      for (int k = 0; k < 3; ++k) {
        for (int o = 0; o < 16; ++o) t[3 * i + k][o] = g[i][0] * w[k][o] + g[i][1] * w[3 + k][o] + g[i][2] * w[6 + k][o];
      }
    }
    for (int p = 0; p < 36; ++p) {
      float* to = packed + (p * blocks * in + u) * 16;
      const double(*r)[16] = t + p / 6 * 3, *f = g[p % 6];
      for (int o = 0; o < 16; ++o) to[o] = static_cast<float>(r[0][o] * f[0] + r[1][o] * f[1] + r[2][o] * f[2]);
    }
  }
}

}  // namespace
