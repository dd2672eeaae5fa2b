// 3x3 convolutions from rows of images to tiles: Winograd's F(6x6, 3x3). Included inside the namespace of each instruction
// set, after image_rows.h and tile_products.h.
//
// Input tiles of 8x8 are transformed, multiplied as 64 matrix products over the channels, and transformed back, with a
// fifth of the multiplications. A NaN or infinity therefore reaches all outputs of its tile and not only its own nine.

namespace {

constexpr int kInSide = kSide + 2, kOutputs = kSide * kSide;  // of a tile
constexpr int64_t kGroups = 3, kStep = kGroups * kGroup;  // tiles that go through the transforms together: they stay in L2
// Where their products are only transformed back: vectors of 16 read L2 so fast that fewer, nearer ones are better.
constexpr int64_t kFew = kLanes == 16 ? kGroup : kStep;

struct Layer {
  const float *filter, *bias;
  int64_t in, out;
};

// --- Winograd ---------------------------------------------------------------------------------------------------------

// B^T d for the points 0, 1, -1, 2, -2, 1/2, -1/2, infinity.
BK_INLINE void input_transform(const V* d, int64_t step, V* t, int64_t t_step) {
  const V d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step], d6 = d[6 * step];
  t[0] = d[0] - d6 + 5.25f * (d4 - d2);
  t[7 * t_step] = d[7 * step] - d1 + 5.25f * (d3 - d5);
  const V a = d2 + d6 - 4.25f * d4, b = d1 + d5 - 4.25f * d3;
  t[t_step] = a + b;
  t[2 * t_step] = a - b;
  const V c = d6 + 0.25f * d2 - 1.25f * d4, e = d5 + 0.25f * d1 - 1.25f * d3;
  t[3 * t_step] = c + 2.f * e;
  t[4 * t_step] = c - 2.f * e;
  const V f = d6 + 4.f * d2 - 5.f * d4, g = d5 + 4.f * d1 - 5.f * d3;
  t[5 * t_step] = f + 0.5f * g;
  t[6 * t_step] = f - 0.5f * g;
}

// A^T m.
BK_INLINE void output_transform(const V* m, int64_t step, V* y, int64_t y_step) {
  const V a = m[step] + m[2 * step], b = m[step] - m[2 * step], c = m[3 * step] + m[4 * step];
  const V e = m[3 * step] - m[4 * step], f = m[5 * step] + m[6 * step], g = m[5 * step] - m[6 * step];
  y[0] = m[0] + a + c + f;
  y[y_step] = b + 2.f * e + 0.5f * g;
  y[2 * y_step] = a + 4.f * c + 0.25f * f;
  y[3 * y_step] = b + 8.f * e + 0.125f * g;
  y[4 * y_step] = a + 16.f * c + 0.0625f * f;
  y[5 * y_step] = m[7 * step] + b + 32.f * e + 0.03125f * g;
}

using Transformed = TransformedTiles<kTileParts>;

void transform_tile(const float* const* rows, int64_t pixel, int64_t vectors, float* to) {
  for (int64_t c = 0; c < vectors; ++c, to += Transformed::kVector) {
    V t[kTileParts];
    for (int j = 0; j < kInSide; ++j) {
      V d[kInSide];
      for (int i = 0; i < kInSide; ++i) d[i] = load(rows[i] + j * pixel + c * kLanes);
      input_transform(d, 1, t + j, kInSide);
    }
    for (int i = 0; i < kInSide; ++i) {
      V u[kInSide];
      input_transform(t + kInSide * i, 1, u, 1);
      for (int j = 0; j < kInSide; ++j) store(to + (kInSide * i + j) * Transformed::kPart, u[j]);
    }
  }
}

// Tiles that go through the transforms together: those from the one numbered `begin`, of `columns` in a row, from the tile
// row `top` on.
struct Tiles : Groups<kGroups> {
  int64_t begin, top, columns;

  Tiles(int64_t count, int64_t begin, int64_t top, int64_t columns)
      : Groups(count), begin(begin), top(top), columns(columns) {}

  // f(tile of the group, its upper row of outputs, its left column)
  template <class F>
  BK_INLINE void each_of(int64_t group, const F& f) const {
    const int64_t tile = begin + first[group], tiles = size(group);
    int64_t y = (top + tile / columns) * kSide, x = tile % columns * kSide;
    for (int64_t i = 0; i < tiles; ++i) {
      f(i, y, x);
      x += kSide;
      if (x == columns * kSide) x = 0, y += kSide;
    }
  }
  // f(group, tile of the group, its upper row of outputs, its left column)
  template <class F>
  BK_INLINE void each(const F& f) const {
    for (int64_t g = 0; g < groups; ++g) each_of(g, [&](int64_t i, int64_t y, int64_t x) { f(g, i, y, x); });
  }
};

// N rows that follow each other, from the pixel (y, x) on.
template <int N>
struct RowsAt {
  float* at[N];

  RowsAt(const Rows& rows, int64_t y, int64_t x) {
    float* row = rows.at(y, x);
    float* const end = rows.data + rows.count * rows.size;
    for (int i = 0; i < N; ++i) {
      at[i] = row;
      row += rows.size;
      if (row >= end) row -= rows.count * rows.size;
    }
  }
};

// The tiles' inputs, from rows.
void transform(const Tiles& tiles, const Rows& from, const Transformed& v) {
  tiles.each([&](int64_t g, int64_t i, int64_t y, int64_t x) {
    const RowsAt<kInSide> rows(from, y - 1, x - 1);
    transform_tile(rows.at, from.pixel, v.vectors, v.at(g, 0) + i * kLanes);
  });
}

// A tile's products.
struct Products {
  const float* data;
  BK_INLINE V operator()(int p) const { return load(data + p * Transformed::kPart); }
};

// Transforms back along the columns: kSide rows, for output_transform. The point 1 has the same share, 1, in all of a
// row's outputs: there a bias is added once for kSide of them.
template <class P>
BK_INLINE void untransform(const P& product, V bias, V* rows) {
  for (int j = 0; j < kInSide; ++j) {
    V d[kInSide];
    for (int i = 0; i < kInSide; ++i) d[i] = product(kInSide * i + j);
    output_transform(d, 1, rows + j, kInSide);
  }
  for (int i = 0; i < kSide; ++i) rows[kInSide * i + 1] += bias;
}

// Where the first convolution puts its tiles: rows, zero beyond the image.
struct ToRows {
  static constexpr int64_t kTogether = kFew;
  Rows rows;
  int64_t height, width;

  // One vector of a tile's channels.
  template <class P>
  BK_INLINE void put(const P& product, V bias, int64_t channel, int64_t y, int64_t x, const RowsAt<kSide>& to) const {
    V t[kSide * kInSide];
    untransform(product, bias, t);
    const int64_t pixel = rows.pixel, above = height - y, left = width - x;
    for (int i = 0; i < kSide; ++i) {
      V v[kSide];
      output_transform(t + kInSide * i, 1, v, 1);
      for (int j = 0; j < kSide; ++j)
        store(to.at[i] + j * pixel + channel, i < above && j < left ? relu(v[j]) : V{});
    }
  }

  void operator()(const float* from, int64_t vectors, const float* bias, int64_t y, int64_t x) const {
    const RowsAt<kSide> to(rows, y, x);
    for (int64_t c = 0; c < vectors; ++c, from += Transformed::kVector)
      put(Products{from}, load(bias + c * kLanes), c * kLanes, y, x, to);
  }

  void done(const Tiles&, const Transformed&, const Transformed&) const {}
};

// f(tiles), for up to kTogether tiles of the tile rows [first, last).
template <int64_t kTogether, class F>
BK_INLINE void steps(int64_t first, int64_t last, int64_t width, const F& f) {
  const int64_t columns = ceil_div(width, kSide), all = (last - first) * columns, blocks = ceil_div(all, kTogether);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = all * b / blocks;
    f(Tiles(all * (b + 1) / blocks - begin, begin, first, columns));
  }
}

// Tile rows [first, last) of a convolution. `to` takes every tile's products, and `done` all of To::kTogether tiles' with
// their inputs.
template <class To>
void winograd(const Layer& layer, const Rows& from, const To& to, int64_t first, int64_t last, int64_t width,
              float* v_space, float* m_space) {
  const Transformed v{v_space, ceil_div(layer.in, kLanes)}, m{m_space, ceil_div(layer.out, 16) * (16 / kLanes)};
  steps<To::kTogether>(first, last, width, [&](const Tiles& tiles) {
    transform(tiles, from, v);
    multiply<kGroups>(tiles, v, layer.filter, ceil_div(layer.out, 16), layer.in, m);
    tiles.each([&](int64_t g, int64_t i, int64_t y, int64_t x) {
      to(m.at(g, 0) + i * kLanes, m.vectors, layer.bias, y, x);
    });
    to.done(tiles, v, m);
  });
}

// The same for RGB, whose few multiplications are done where a tile is transformed back.
void winograd_rgb(const Layer& layer, const Rows& from, const ToRows& to, int64_t first, int64_t last, int64_t width,
                  float* v_space) {
  const Transformed v{v_space, 1};
  const int64_t blocks = ceil_div(layer.out, 16);
  steps<kFew>(first, last, width, [&](const Tiles& tiles) {
    transform(tiles, from, v);
    for (int64_t g = 0; g < tiles.groups; ++g) {
      for (int64_t block = 0; block < blocks; ++block) {  // its filters stay in L1, as the group does
        tiles.each_of(g, [&](int64_t i, int64_t y, int64_t x) {
          const RowsAt<kSide> rows(to.rows, y, x);
          const float* tile = v.at(g, 0) + i * kLanes;
          for (int64_t c = 0; c < 16; c += kLanes) {
            const float* u = layer.filter + block * 48 + c;
            const auto product = [&](int p) {
              const float *in = tile + p * Transformed::kPart, *f = u + p * blocks * 48;
              return splat(in[0]) * load(f) + splat(in[1]) * load(f + 16) + splat(in[2]) * load(f + 32);
            };
            to.put(product, load(layer.bias + block * 16 + c), block * 16 + c, y, x, rows);
          }
        });
      }
    }
  });
}

void winograd_to_rows(const Layer& layer, const Rows& from, const ToRows& to, int64_t first, int64_t last, int64_t width,
                      float* v_space, float* m_space) {
  if (layer.in == 3)
    winograd_rgb(layer, from, to, first, last, width, v_space);
  else
    winograd(layer, from, to, first, last, width, v_space, m_space);
}

// Filters (out, in, 3, 3), contiguous, to [kTileParts][ceil(out / 16)][in][16] in the Winograd domain, zero beyond `out`: the
// inputs [begin, end), counted through all blocks of 16 outputs.
void pack_winograd(const float* weight, int64_t out, int64_t in, float* packed, int64_t begin, int64_t end) {
  static const double g[kInSide][3] = {{1, 0, 0},
                                       {-2. / 9, -2. / 9, -2. / 9},
                                       {-2. / 9, 2. / 9, -2. / 9},
                                       {1. / 90, 1. / 45, 2. / 45},
                                       {1. / 90, -1. / 45, 2. / 45},
                                       {32. / 45, 16. / 45, 8. / 45},
                                       {32. / 45, -16. / 45, 8. / 45},
                                       {0, 0, 1}};
  const int64_t blocks = ceil_div(out, 16);
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = u / in * 16, c = u % in;
    double w[9][16] = {}, t[3 * kInSide][16];
    for (int64_t o = 0; o < lesser(16, out - first); ++o) {
      for (int k = 0; k < 9; ++k) w[k][o] = weight[((first + o) * in + c) * 9 + k];
    }
    for (int i = 0; i < kInSide; ++i) {
      for (int k = 0; k < 3; ++k) {
        for (int o = 0; o < 16; ++o) t[3 * i + k][o] = g[i][0] * w[k][o] + g[i][1] * w[3 + k][o] + g[i][2] * w[6 + k][o];
      }
    }
    for (int p = 0; p < kTileParts; ++p) {
      float* to = packed + (p * blocks * in + u) * 16;
      const double(*r)[16] = t + p / kInSide * 3, *f = g[p % kInSide];
      for (int o = 0; o < 16; ++o) to[o] = static_cast<float>(r[0][o] * f[0] + r[1][o] * f[1] + r[2][o] * f[2]);
    }
  }
}

}  // namespace
