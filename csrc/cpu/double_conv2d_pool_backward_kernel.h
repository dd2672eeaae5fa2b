// The arithmetic of double_conv2d_pool's backward for one instruction set (included by double_conv2d_pool_kernel.h).
//
// Down an image as the forward goes, in rings of rows of which each runs a tile row ahead of the one that reads it: x; the
// first convolution, computed again; the gradient at the second one's output, for whose ReLU that is computed again; the
// gradient at the first one's output; x's gradient. A filter's gradient is the adjoint of the Winograd convolution: the
// sums over all tiles of their transformed inputs times their transformed gradients are 64 matrix products, of which one
// factor is there already, and are transformed back once.

namespace {

// --- gradients of filters ---------------------------------------------------------------------------------------------

// A g, the adjoint of output_transform.
BK_INLINE void gradient_transform(const V* g, int64_t step, V* t, int64_t t_step) {
  const V g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = g[3 * step], g4 = g[4 * step], g5 = g[5 * step];
  const V a = g0 + g2 + g4, b = g1 + g3 + g5;
  const V c = g0 + 4.f * g2 + 16.f * g4, e = 2.f * g1 + 8.f * g3 + 32.f * g5;
  const V f = g0 + 0.25f * g2 + 0.0625f * g4, h = 0.5f * g1 + 0.125f * g3 + 0.03125f * g5;
  t[0] = g0;
  t[t_step] = a + b;
  t[2 * t_step] = a - b;
  t[3 * t_step] = c + e;
  t[4 * t_step] = c - e;
  t[5 * t_step] = f + h;
  t[6 * t_step] = f - h;
  t[7 * t_step] = g5;
}

BK_INLINE void transform_gradient(const V* g, float* to) {
  V t[kInSide * kSide];
  for (int j = 0; j < kSide; ++j) gradient_transform(g + j, kSide, t + j, kSide);
  for (int i = 0; i < kInSide; ++i) {
    V u[kInSide];
    gradient_transform(t + kSide * i, 1, u, 1);
    for (int j = 0; j < kInSide; ++j) store(to + (kInSide * i + j) * Transformed::kPart, u[j]);
  }
}

constexpr int kInputs = kLanes == 16 ? 8 : 4;  // times two vectors of outputs: sums in registers

// Adds, over the tiles, kInputs input channels times N vectors of outputs.
template <int N>
void add_products(const Tiles& tiles, const float* v, int64_t v_step, const float* m, int64_t m_step, float* sums,
                  int64_t row) {
  V sum[kInputs][N];
  for (int k = 0; k < kInputs; ++k) {
    for (int n = 0; n < N; ++n) sum[k][n] = load(sums + k * row + n * kLanes);
  }
  for (int64_t g = 0; g < tiles.groups; ++g, v += v_step, m += m_step) {
    const int64_t size = tiles.size(g) * kLanes;
    for (int64_t t = 0; t < size; t += kLanes) {
      V f[N];
      for (int n = 0; n < N; ++n) f[n] = load(m + n * Transformed::kVector + t);
      for (int k = 0; k < kInputs; ++k) {
        const V s = splat(v[t + k]);
        for (int n = 0; n < N; ++n) sum[k][n] += s * f[n];
      }
    }
  }
  for (int k = 0; k < kInputs; ++k) {
    for (int n = 0; n < N; ++n) store(sums + k * row + n * kLanes, sum[k][n]);
  }
}

// sums[kTileParts][vectors of v, kLanes][vectors of m, kLanes] += inputs times gradients.
void add_products(const Tiles& tiles, const Transformed& v, const Transformed& m, float* sums) {
  const int64_t row = m.vectors * kLanes, v_step = v.vectors * Transformed::kVector, m_step = m.vectors * Transformed::kVector;
  for (int64_t p = 0; p < kTileParts * Transformed::kPart; p += Transformed::kPart) {
    for (int64_t c = 0; c < v.vectors * kLanes; c += kInputs, sums += kInputs * row) {
      const float* from = v.at(0, c / kLanes) + p + c % kLanes;
      for (int64_t n = 0; n < m.vectors; n += 2) {
        if (n + 1 < m.vectors)
          add_products<2>(tiles, from, v_step, m.at(0, n) + p, m_step, sums + n * kLanes, row);
        else
          add_products<1>(tiles, from, v_step, m.at(0, n) + p, m_step, sums + n * kLanes, row);
      }
    }
  }
}

// G^T s, the adjoint of a filter's transform.
BK_INLINE void filter_untransform(const V* s, int64_t step, V* w, int64_t w_step) {
  const V a = (s[step] + s[2 * step]) * (2.f / 9), b = (s[2 * step] - s[step]) * (2.f / 9);
  const V c = (s[3 * step] + s[4 * step]) * (1.f / 90), e = (s[3 * step] - s[4 * step]) * (1.f / 45);
  const V f = (s[5 * step] + s[6 * step]) * (8.f / 45), g = (s[5 * step] - s[6 * step]) * (16.f / 45);
  w[0] = s[0] - a + c + 4.f * f;
  w[w_step] = b + e + g;
  w[2 * w_step] = 4.f * c - a + f + s[7 * step];
}

// The gradient (out, in, 3, 3) from the sums [kTileParts][inputs][outputs].
void filter_gradient(const float* sums, int64_t inputs, int64_t outputs, int64_t in, int64_t out, float* to) {
  for (int64_t c = 0; c < in; ++c) {
    for (int64_t o = 0; o < out; o += kLanes) {
      V s[kTileParts], t[3 * kInSide], w[9];
      for (int p = 0; p < kTileParts; ++p) s[p] = load(sums + (p * inputs + c) * outputs + o);
      for (int j = 0; j < kInSide; ++j) filter_untransform(s + j, kInSide, t + j, kInSide);
      for (int i = 0; i < 3; ++i) filter_untransform(t + kInSide * i, 1, w + 3 * i, 1);
      for (int64_t n = 0; n < lesser(kLanes, out - o); ++n) {
        for (int k = 0; k < 9; ++k) to[((o + n) * in + c) * 9 + k] = w[k][n];
      }
    }
  }
}

// --- one thread's part ------------------------------------------------------------------------------------------------

struct BackwardWorkspace {
  int64_t step;  // tile rows that go through together
  Rows x, mid, pooled, y_grad, mid_grad, x_grad;
  float *v, *m, *sums1, *sums2, *bias1, *bias2;
  int64_t size, sums;  // floats of it all, and of what is summed up, from sums1 on

  BackwardWorkspace(const DoubleConv2dPoolBackward& a, float* base) {
    const int64_t columns = ceil_div(a.width, kSide), rows = ceil_div(a.height, kSide);
    step = ceil_div(rows, ceil_div(rows, greater(1, kStep / columns)));
    Arena arena{base};
    const auto whole = [](int64_t channels) { return ceil_div(channels, 16) * 16; };
    const int64_t live = kSide * (step + 3);  // rows between the first that is still read and the last that is there
    x = arena.ring(live, kSide * columns + 2, ceil_div(a.in, kLanes) * kLanes, 1);
    mid = arena.ring(live, kSide * columns + 2, whole(a.mid), 1);
    pooled = arena.ring(kSide * step / a.pool + 2, a.width / a.pool, whole(a.out), 0);
    y_grad = arena.ring(live, kSide * columns + 2, whole(a.out), 1);
    mid_grad = arena.ring(live, kSide * columns + 2, whole(a.mid), 1);
    x_grad = arena.ring(a.x_grad == nullptr ? 0 : kSide * step, kSide * columns, whole(a.in), 0);
    const int64_t group = Transformed::kVector * ceil_div(lesser(kStep, step * columns), kGroup) / kLanes;
    v = arena.take(group * greater(whole(a.in), greater(whole(a.mid), whole(a.out))));
    m = arena.take(group * greater(whole(a.in), greater(whole(a.mid), whole(a.out))));
    const int64_t before = arena.size;
    sums1 = arena.take(kTileParts * whole(a.in) * whole(a.mid));
    sums2 = arena.take(kTileParts * whole(a.mid) * whole(a.out));
    bias1 = arena.take(whole(a.mid));
    bias2 = arena.take(whole(a.out));
    size = arena.size;
    sums = size - before;
  }
};

BK_INLINE void add(float* to, V v) { store(to, load(to) + v); }

// Where the second convolution's outputs go: they tell where its ReLU passes the pooled gradient on.
template <int kCell>
struct ToYGrad {
  static constexpr int64_t kTogether = kStep;
  Rows pooled, rows;
  int64_t pool, height, width;  // of the pooled gradient
  float *sums, *bias_sums;      // null where another part of the image counts these rows

  void operator()(float* from, int64_t vectors, const float* bias, int64_t y, int64_t x) const {
    constexpr int kCells = kSide / kCell;
    const float* cell[kCells][kCells];
    for (int i = 0; i < kCells; ++i) {
      for (int j = 0; j < kCells; ++j) {
        const int64_t row = (y + i * kCell) / pool, column = (x + j * kCell) / pool;
        cell[i][j] = row < height && column < width ? pooled.at(row, column) : nullptr;
      }
    }
    const float scale = 1.f / (static_cast<float>(pool) * static_cast<float>(pool));
    const RowsAt<kSide> to(rows, y, x);
    const int64_t pixel = rows.pixel;
    for (int64_t c = 0; c < vectors * kLanes; c += kLanes, from += Transformed::kVector) {
      V t[kSide * kInSide], v[kOutputs], sum = V{};
      untransform(Products{from}, load(bias + c), t);
      for (int i = 0; i < kSide; ++i) {
        V o[kSide];
        output_transform(t + kInSide * i, 1, o, 1);
        for (int j = 0; j < kSide; ++j) {
          const float* mean = cell[i / kCell][j / kCell];
          V g = mean == nullptr ? V{} : load(mean + c) * scale;
          g = o[j] <= 0.f ? V{} : g;
          sum += g;
          store(to.at[i] + j * pixel + c, v[kSide * i + j] = g);
        }
      }
      if (sums == nullptr) continue;
      add(bias_sums + c, sum);
      transform_gradient(v, from);
    }
  }

  void done(const Tiles& tiles, const Transformed& v, const Transformed& m) const {
    if (sums != nullptr) add_products(tiles, v, m, sums);
  }
};

// Where the gradient at the first convolution's output goes, behind its ReLU.
struct ToMidGrad {
  static constexpr int64_t kTogether = kStep;
  Rows mid, rows, x;
  float *sums, *bias_sums;  // as in ToYGrad
  int64_t in;

  void operator()(float* from, int64_t vectors, const float*, int64_t y, int64_t x) const {
    const RowsAt<kSide> at(mid, y, x), to(rows, y, x);
    const int64_t pixel = rows.pixel;
    for (int64_t c = 0; c < vectors * kLanes; c += kLanes, from += Transformed::kVector) {
      V t[kSide * kInSide], v[kOutputs], sum = V{};
      untransform(Products{from}, V{}, t);
      for (int i = 0; i < kSide; ++i) {
        V o[kSide];
        output_transform(t + kInSide * i, 1, o, 1);
        for (int j = 0; j < kSide; ++j) {
          const V g = load(at.at[i] + j * pixel + c) <= 0.f ? V{} : o[j];
          sum += g;
          store(to.at[i] + j * pixel + c, v[kSide * i + j] = g);
        }
      }
      if (sums == nullptr) continue;
      add(bias_sums + c, sum);
      transform_gradient(v, from);
    }
  }

  void done(const Tiles& tiles, const Transformed& v, const Transformed& m) const {
    if (sums == nullptr) return;
    const Transformed inputs{v.data, ceil_div(in, kLanes)};
    transform(tiles, x, inputs);
    add_products(tiles, inputs, m, sums);
  }
};

struct ToXGrad {
  static constexpr int64_t kTogether = kFew;
  Rows rows;

  void operator()(const float* from, int64_t vectors, const float*, int64_t y, int64_t x) const {
    const RowsAt<kSide> to(rows, y, x);
    const int64_t pixel = rows.pixel;
    for (int64_t c = 0; c < vectors * kLanes; c += kLanes, from += Transformed::kVector) {
      V t[kSide * kInSide];
      untransform(Products{from}, V{}, t);
      for (int i = 0; i < kSide; ++i) {
        V v[kSide];
        output_transform(t + kInSide * i, 1, v, 1);
        for (int j = 0; j < kSide; ++j) store(to.at[i] + j * pixel + c, v[j]);
      }
    }
  }

  void done(const Tiles&, const Transformed&, const Transformed&) const {}
};

// Tile rows [top, bottom) of one image: their share of the sums, and their rows of x's gradient.
template <int kCell>
class Walk {
 public:
  Walk(const DoubleConv2dPoolBackward& a, const BackwardWorkspace& w, int64_t image, int64_t top, int64_t bottom)
      : a_(a), w_(w), image_(image), top_(top), bottom_(bottom), tile_rows_(ceil_div(a.height, kSide)) {
    const int64_t reach = a.x_grad != nullptr ? 1 : a.first ? 0 : -1;  // rows that the last gradient's rows need around them
    mid_grad_next_ = greater(top - reach, -1);
    y_grad_next_ = greater(top - reach - 1, -1);
    mid_next_ = greater(top - reach - 2, -1);
    x_next_ = kSide * greater(mid_next_, 0) - 1;
  }

  void run() {
    if (a_.x_grad == nullptr) {
      if (a_.first)
        need_mid_grad(bottom_);
      else
        need_y_grad(bottom_);
      return;
    }
    const Layer layer{a_.turned1, nullptr, a_.mid, a_.in};
    float* to = a_.x_grad + image_ * a_.x_grad_stride[0];
    for (int64_t t = top_, stop; t < bottom_; t = stop) {
      stop = lesser(t + w_.step, bottom_);
      need_mid_grad(stop + 1);
      winograd(layer, w_.mid_grad, ToXGrad{w_.x_grad}, t, stop, a_.width, w_.v, w_.m);
      for (int64_t r = kSide * t; r < lesser(kSide * stop, a_.height); ++r)
        emit(w_.x_grad.row(r), w_.x_grad.pixel, a_.in, a_.width, to + r * a_.x_grad_stride[2], a_.x_grad_stride[1],
             a_.x_grad_stride[3]);
    }
  }

 private:
  const DoubleConv2dPoolBackward& a_;
  const BackwardWorkspace& w_;
  int64_t image_, top_, bottom_, tile_rows_, mid_grad_next_, y_grad_next_, mid_next_, x_next_;

  // Where the tile rows from `next` on that go through together end; 0: it is zeros beside the image, and they are set.
  int64_t stop_of(const Rows& rows, int64_t next, int64_t stop) const {
    if (next >= 0 && next < tile_rows_) return lesser(lesser(next + w_.step, stop), tile_rows_);
    for (int64_t r = kSide * next; r < kSide * next + kSide; ++r) rows.zero(r);
    return 0;
  }
  bool counts(int64_t tile_row) const { return tile_row >= top_ && tile_row < bottom_; }
  int64_t uniform(int64_t next, int64_t stop) const {  // all of them count, or none
    return next < top_ ? lesser(stop, top_) : next < bottom_ ? lesser(stop, bottom_) : stop;
  }

  void need_mid(int64_t end) {
    const Layer layer{a_.filter1, a_.bias1, a_.in, a_.mid};
    const auto& s = a_.x_stride;
    const Image x{a_.x + image_ * s[0], a_.in, a_.height, a_.width, s[1], s[2], s[3]};
    while (mid_next_ < end) {
      const int64_t stop = stop_of(w_.mid, mid_next_, end);
      if (stop > 0) {
        stage(x, w_.x, x_next_, kSide * stop + 1);
        x_next_ = kSide * stop + 1;
        winograd_to_rows(layer, w_.x, ToRows{w_.mid, a_.height, a_.width}, mid_next_, stop, a_.width, w_.v, w_.m);
      }
      mid_next_ = stop > 0 ? stop : mid_next_ + 1;
    }
  }

  void need_y_grad(int64_t end) {
    const Layer layer{a_.filter2, a_.bias2, a_.mid, a_.out};
    const auto& s = a_.grad_stride;
    const int64_t height = a_.height / a_.pool, width = a_.width / a_.pool;
    const Image grad{a_.grad + image_ * s[0], a_.out, height, width, s[1], s[2], s[3]};
    while (y_grad_next_ < end) {
      int64_t stop = stop_of(w_.y_grad, y_grad_next_, end);
      if (stop > 0) {
        stop = uniform(y_grad_next_, stop);
        need_mid(stop + 1);
        stage(grad, w_.pooled, kSide * y_grad_next_ / a_.pool, ceil_div(kSide * stop, a_.pool));
        const ToYGrad<kCell> to{w_.pooled, w_.y_grad, a_.pool, height, width, counts(y_grad_next_) ? w_.sums2 : nullptr, w_.bias2};
        winograd(layer, w_.mid, to, y_grad_next_, stop, a_.width, w_.v, w_.m);
      }
      y_grad_next_ = stop > 0 ? stop : y_grad_next_ + 1;
    }
  }

  void need_mid_grad(int64_t end) {
    const Layer layer{a_.turned2, nullptr, a_.out, a_.mid};
    while (mid_grad_next_ < end) {
      int64_t stop = stop_of(w_.mid_grad, mid_grad_next_, end);
      if (stop > 0) {
        stop = uniform(mid_grad_next_, stop);
        need_y_grad(stop + 1);
        const ToMidGrad to{w_.mid, w_.mid_grad, w_.x, counts(mid_grad_next_) ? w_.sums1 : nullptr, w_.bias1, a_.in};
        winograd(layer, w_.y_grad, to, mid_grad_next_, stop, a_.width, w_.v, w_.m);
      }
      mid_grad_next_ = stop > 0 ? stop : mid_grad_next_ + 1;
    }
  }
};

}  // namespace

// Floats of workspace a thread needs.
int64_t block_backward_workspace(const DoubleConv2dPoolBackward& a) { return BackwardWorkspace(a, nullptr).size; }

// The share of the bands [begin, end), counted through all images, in the parameters' gradients: `to` gets weight1's,
// bias1's, weight2's and bias2's, one after the other.
void block_gradients(const DoubleConv2dPoolBackward& a, float* space, int64_t begin, int64_t end, float* to) {
  const BackwardWorkspace w(a, space);
  for (const Rows& ring : {w.mid, w.y_grad, w.mid_grad}) {  // their borders are written nowhere else
    for (int64_t r = 0; r < ring.count; ++r) {
      __builtin_memset(ring.row(r), 0, ring.pixel * sizeof(float));
      __builtin_memset(ring.row(r) + ring.size - ring.pixel, 0, ring.pixel * sizeof(float));
    }
  }
  __builtin_memset(w.sums1, 0, w.sums * sizeof(float));
  const int64_t tile_rows = ceil_div(a.height, kSide);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t image = b / a.bands, band = b % a.bands;
    const int64_t top = tile_rows * band / a.bands, bottom = tile_rows * (band + 1) / a.bands;
    if (a.pool % 6 == 0)
      Walk<6>(a, w, image, top, bottom).run();
    else if (a.pool % 3 == 0)
      Walk<3>(a, w, image, top, bottom).run();
    else if (a.pool % 2 == 0)
      Walk<2>(a, w, image, top, bottom).run();
    else
      Walk<1>(a, w, image, top, bottom).run();
  }
  const int64_t mid = ceil_div(a.mid, 16) * 16, out = ceil_div(a.out, 16) * 16;
  filter_gradient(w.sums1, ceil_div(a.in, kLanes) * kLanes, mid, a.in, a.mid, to);
  to += a.mid * a.in * 9;
  __builtin_memcpy(to, w.bias1, a.mid * sizeof(float));
  to += a.mid;
  filter_gradient(w.sums2, ceil_div(a.mid, kLanes) * kLanes, out, a.mid, a.out, to);
  to += a.out * a.mid * 9;
  __builtin_memcpy(to, w.bias2, a.out * sizeof(float));
}
