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
constexpr int64_t kStep = 36;                                    // tiles that go through the transforms together

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

// Tiles that go through the transforms together, in groups as even as possible.
struct Tiles {
  int64_t count, groups;

  explicit Tiles(int64_t n) : count(n), groups(ceil_div(n, kTiles)) {}
  int64_t first(int64_t group) const { return count * group / groups; }
  int64_t size(int64_t group) const { return first(group + 1) - first(group); }
};

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

// Transforms back, adds the bias, applies ReLU.
BK_INLINE void untransform(const float* from, const float* bias, V* y) {
  V t[24];
  for (int j = 0; j < 6; ++j) {
    V d[6];
    for (int i = 0; i < 6; ++i) d[i] = load(from + (6 * i + j) * Transformed::kPart);
    output_transform(d, 1, t + j, 6);
  }
  const V b = load(bias);
  for (int i = 0; i < 4; ++i) {
    output_transform(t + 6 * i, 1, y + 4 * i, 1);
    for (int j = 0; j < 4; ++j) y[4 * i + j] = relu(y[4 * i + j] + b);
  }
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
      untransform(from, bias + c * kLanes, v);
      for (int i = 0; i < 16; ++i) {
        const bool inside = y + i / 4 < height && x + i % 4 < width;
        store(to[i / 4] + i % 4 * rows.pixel + c * kLanes, inside ? v[i] : V{});
      }
    }
  }
};

// Where the second puts them: added to the means of pooled rows [first, last). The cells of kCell x kCell outputs of a
// tile, kCell = gcd(4, pool), each belong to one mean.
template <int kCell>
struct ToMeans {
  Rows means;
  int64_t pool, first, last, width;

  void operator()(const float* from, int64_t vectors, const float* bias, int64_t y, int64_t x) const {
    constexpr int kSide = 4 / kCell;
    float* to[kSide][kSide];
    for (int i = 0; i < kSide; ++i) {
      const int64_t row = (y + i * kCell) / pool;
      for (int j = 0; j < kSide; ++j) {
        const int64_t column = (x + j * kCell) / pool;
        to[i][j] = row >= first && row < last && column < width ? means.at(row, column) : nullptr;
      }
    }
    const float scale = 1.f / (static_cast<float>(pool) * static_cast<float>(pool));
    for (int64_t c = 0; c < vectors; ++c, from += Transformed::kVector) {
      V v[16];
      untransform(from, bias + c * kLanes, v);
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) {
          if (to[i][j] == nullptr) continue;
          V sum = V{};
          for (int k = 0; k < kCell * kCell; ++k) sum += v[(i * kCell + k / kCell) * 4 + j * kCell + k % kCell];
          float* mean = to[i][j] + c * kLanes;
          store(mean, load(mean) + sum * scale);
        }
      }
    }
  }
};

// Tile rows [first, last) of a convolution with ReLU.
template <class To>
void winograd(const Layer& layer, const Rows& from, const To& to, int64_t first, int64_t last, int64_t width,
              float* v_space, float* m_space) {
  const int64_t columns = ceil_div(width, 4), all = (last - first) * columns, blocks = ceil_div(all, kStep);
  const Transformed v{v_space, ceil_div(layer.in, kLanes)}, m{m_space, ceil_div(layer.out, 16) * (16 / kLanes)};
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = all * b / blocks;
    const Tiles tiles(all * (b + 1) / blocks - begin);
    for (int64_t g = 0; g < tiles.groups; ++g) {
      for (int64_t i = 0; i < tiles.size(g); ++i) {
        const int64_t tile = begin + tiles.first(g) + i, y = (first + tile / columns) * 4, x = tile % columns * 4;
        const float* rows[6];
        for (int r = 0; r < 6; ++r) rows[r] = from.at(y + r - 1, x - 1);
        transform_tile(rows, from.pixel, v.vectors, v.at(g, 0) + i * kLanes);
      }
    }
    multiply(tiles, v, layer, m);
    for (int64_t g = 0; g < tiles.groups; ++g) {
      for (int64_t i = 0; i < tiles.size(g); ++i) {
        const int64_t tile = begin + tiles.first(g) + i;
        to(m.at(g, 0) + i * kLanes, m.vectors, layer.bias, (first + tile / columns) * 4, tile % columns * 4);
      }
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

// Rows [first, last) of an image into the workspace, zeros outside.
void stage(const DoubleConv2dPool& a, const float* image, const Rows& to, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) to.zero(r);
  first = greater(first, 0);
  last = lesser(last, a.height);
  const int64_t sc = a.x_stride[1], sh = a.x_stride[2], sw = a.x_stride[3];
  if (sc == 1 && sw == to.pixel && a.in == to.pixel) {
    for (int64_t r = first; r < last; ++r) __builtin_memcpy(to.at(r, 0), image + r * sh, a.width * sw * sizeof(float));
  } else if (sw == 1 && to.pixel % kLanes == 0 && a.width >= kLanes) {
    for (int64_t c = 0; c < a.in; c += kLanes) {
      for (int64_t r = first; r < last; ++r) {
        for (int64_t next = 0; next < a.width; next += kLanes) {
          const int64_t x = lesser(next, a.width - kLanes);
          planes_to_pixels(image + r * sh + c * sc + x, sc, a.in - c, to.at(r, x) + c, to.pixel);
        }
      }
    }
  } else {
    for (int64_t r = first; r < last; ++r) {
      const float* from = image + r * sh;
      float* pixel = to.at(r, 0);
      for (int64_t x = 0; x < a.width; ++x, from += sw, pixel += to.pixel) {
        for (int64_t c = 0; c < a.in; ++c) pixel[c] = from[c * sc];
      }
    }
  }
}

// A pooled row to the output.
void emit(const DoubleConv2dPool& a, const float* means, int64_t pixel, float* to) {
  const int64_t width = a.width / a.pool, sc = a.y_stride[1], sw = a.y_stride[3];
  if (sc == 1 && a.out == pixel) {
    __builtin_memcpy(to, means, width * pixel * sizeof(float));
  } else if (sw == 1 && width >= kLanes) {
    for (int64_t c = 0; c < a.out; c += kLanes) {
      for (int64_t next = 0; next < width; next += kLanes) {
        const int64_t x = lesser(next, width - kLanes);
        pixels_to_planes(means + x * pixel + c, pixel, a.out - c, to + c * sc + x, sc);
      }
    }
  } else {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < a.out; ++c) to[c * sc + x * sw] = means[x * pixel + c];
    }
  }
}

// --- one thread's part ------------------------------------------------------------------------------------------------

struct Workspace {
  int64_t step;  // tile rows that go through together
  Rows x, mid, means;
  float *v, *m;
  int64_t size;  // floats of it all

  // Divides up `base`; with none, only counts.
  Workspace(const DoubleConv2dPool& a, float* base) : size(0) {
    const int64_t columns = ceil_div(a.width, 4), rows = ceil_div(a.height, 4);
    const int64_t steps = ceil_div(rows, greater(1, kStep / columns));
    step = ceil_div(rows, steps);
    const auto take = [&](int64_t n) {
      float* p = base == nullptr ? nullptr : base + size;
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
    means = ring(4 * step / a.pool + 2, a.width / a.pool, y_pixel, 0);
    const int64_t group = Transformed::kVector * Tiles(lesser(kStep, step * columns)).groups / kLanes;
    v = take(group * greater(x.pixel, mid_pixel));
    m = take(group * greater(mid_pixel, y_pixel));
  }
};

template <int kCell>
void image_rows(const DoubleConv2dPool& a, const Workspace& w, int64_t image, int64_t begin, int64_t end) {
  const Layer one{a.filter1, a.bias1, a.in, a.mid}, two{a.filter2, a.bias2, a.mid, a.out};
  const ToRows to_mid{w.mid, a.height, a.width};
  const ToMeans<kCell> to_means{w.means, a.pool, begin, end, a.width / a.pool};
  const float* x = a.x + image * a.x_stride[0];
  float* y = a.y + image * a.y_stride[0];
  for (int64_t r = 0; r < w.means.count; ++r) w.means.zero(r);
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
        stage(a, x, w.x, x_next, 4 * mid_stop + 1);
        x_next = 4 * mid_stop + 1;
        if (a.in <= kDirect)
          direct(one, w.x, w.mid, mid_next, mid_stop, a.height, a.width);
        else
          winograd(one, w.x, to_mid, mid_next, mid_stop, a.width, w.v, w.m);
      }
      mid_next = mid_stop;
    }
    winograd(two, w.mid, to_means, t, stop, a.width, w.v, w.m);
    for (; begin < end && (begin + 1) * a.pool <= 4 * stop; ++begin) {
      emit(a, w.means.row(begin), w.means.pixel, y + begin * a.y_stride[2]);
      w.means.zero(begin);
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
    if (a.pool % 4 == 0)
      image_rows<4>(a, w, image, row, row + rows);
    else if (a.pool % 2 == 0)
      image_rows<2>(a, w, image, row, row + rows);
    else
      image_rows<1>(a, w, image, row, row + rows);
    begin += rows;
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
