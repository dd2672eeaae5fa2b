// The arithmetic of a convolution's gradients for one instruction set (included by each_isa.h).
//
// The filter's gradient is the adjoint of Winograd's algorithm, as the forward is: with the transformed inputs V of the
// tiles and the transformed gradients A dY A^T, 25 sums of outer products over the tiles, then G^T U G.

// A dY A^T for one vector of channels; A of one dimension:
static BK_INLINE void output_adjoint(const V (&y)[3], V (&m)[5]) {
  const V even = y[0] + y[2];
  m[0] = y[0];
  m[1] = y[0] + 0.5f * y[1] + 0.25f * y[2];
  m[2] = even - y[1];
  m[3] = y[0] + 2.0f * y[1] + 4.0f * y[2];
  m[4] = y[2];
}

static void tile_gradients(const TileGradients& s) {
  for (int64_t tile = 0; tile < s.count; ++tile) {
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      V half[3][5];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        V y[3];
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) y[j] = load(s.src[tile] + i * s.row_stride + j * s.pixel_stride + c);
        output_adjoint(y, half[i]);
      }
#pragma GCC unroll 5
      for (int j = 0; j < 5; ++j) {
        const V column[3] = {half[0][j], half[1][j], half[2][j]};
        V m[5];
        output_adjoint(column, m);
#pragma GCC unroll 5
        for (int i = 0; i < 5; ++i) store(s.out + ((i * 5 + j) * kTiles + tile) * s.channels + c, m[i]);
      }
    }
  }
}

constexpr int kOuterVectors = 2;
constexpr int kOuterRows = kLanes == 16 ? 14 : 6;  // accumulators = rows * vectors, as in a convolution

template <int ROWS, int VECTORS>
static void outer_block(const OuterProducts& s, int64_t row, int64_t channel) {
  float* out[VECTORS];
  V sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int v = 0; v < VECTORS; ++v) {
    const int64_t c = channel + v * kLanes;
    out[v] = s.out + c / 16 * s.out_block + row * 16 + c % 16;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) sum[r][v] = s.add ? load(out[v] + r * 16) : V{};
  }
  const float *a = s.a + row, *b = s.b + channel;
#pragma GCC unroll 2
  for (int64_t n = 0; n < s.count; ++n, a += s.a_stride, b += s.b_stride) {
    V w[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) w[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const float value = a[r];
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sum[r][v] += value * w[v];
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < VECTORS; ++v) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) store(out[v] + r * 16, sum[r][v]);
  }
}

template <int VECTORS, int ROWS = kOuterRows>
static void outer_rows(const OuterProducts& s, int64_t row, int64_t rows, int64_t channel) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS)
      outer_block<ROWS, VECTORS>(s, row, channel);
    else
      outer_rows<VECTORS, ROWS - 1>(s, row, rows, channel);
  }
}

static void outer_products(const OuterProducts& s) {
  const int64_t blocks = (s.rows + kOuterRows - 1) / kOuterRows;
  for (int64_t channel = 0; channel < s.channels; channel += kOuterVectors * kLanes) {
    const bool whole = channel + kOuterVectors * kLanes <= s.channels;
    for (int64_t block = 0; block < blocks; ++block) {  // of nearly equal height
      const int64_t row = s.rows * block / blocks, rows = s.rows * (block + 1) / blocks - row;
      if (whole)
        outer_rows<kOuterVectors>(s, row, rows, channel);
      else
        outer_rows<1>(s, row, rows, channel);
    }
  }
}

// From an activation's output y; as in reference.activation_backward.
static BK_INLINE V derivative(V g, V y, Activation a) {
  switch (a) {
    case Activation::relu: return y <= 0.0f ? V{} : g;
    case Activation::tanh: return g * (1.0f - y * y);
    case Activation::elu: return y > 0.0f ? g : g * (y + 1.0f);
    default: return g;
  }
}

static void gradient_row(const GradientRow& s) {
  VI lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t c = 0; c < s.channels; c += kLanes) {
    const int first = static_cast<int>(std::clamp<int64_t>(s.bound[0] - c, 0, kLanes));
    const int second = static_cast<int>(std::clamp<int64_t>(s.bound[1] - c, 0, kLanes));
    for (int64_t x = 0; x < s.width; ++x) {
      const int64_t at = x * s.src_pixel + c;
      V g = load(s.src[2] + at);
      g = lane < second ? load(s.src[1] + at) : g;
      g = lane < first ? load(s.src[0] + at) : g;
      if (s.activation != Activation::none) g = derivative(g, load(s.y + x * s.y_pixel + c), s.activation);
      store(s.out + x * s.out_pixel + c, g);
    }
  }
}

// Row by row, which keeps long sums precise.
static void pixel_sums(const PixelSums& s) {
  for (int64_t c = s.begin; c < s.end; c += kLanes) {
    V sum = load(s.sums + c);
    for (int64_t i = 0; i < s.frames * s.height; ++i) {
      const float* row = s.src + i / s.height * s.frame_stride + i % s.height * s.row_stride + c;
      V part = V{};
      for (int64_t x = 0; x < s.width; ++x) part += load(row + x * s.pixel_stride);
      sum += part;
    }
    store(s.sums + c, sum);
  }
}

// G^T u of one dimension.
static BK_INLINE void filter_adjoint(const V (&u)[5], V (&w)[3]) {
  w[0] = u[0] + (u[3] - 8.0f * u[1] - 2.0f * u[2]) * (1.0f / 9);
  w[1] = (u[2] + u[3] - 2.0f * u[1]) * (2.0f / 9);
  w[2] = u[4] + (2.0f * u[3] - u[1] - u[2]) * (2.0f / 9);
}

// What outer_products has summed -> the gradient of the filter (out, in, taps); G^T U G for Winograd.
static void unpack_filter(const FilterLayout& f, const float* packed, float* weight, int64_t begin, int64_t end) {
  const int64_t blocks = (f.out + 15) / 16, step = f.in * f.taps;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit / f.in, c = unit % f.in, outs = std::min<int64_t>(16, f.out - 16 * block);
    float* to = weight + 16 * block * step + c * f.taps;
    if (!f.winograd) {
      for (int64_t t = 0; t < f.taps; ++t) {
        for (int64_t o = 0; o < outs; ++o) to[o * step + t] = packed[((block * f.taps + t) * f.in + c) * 16 + o];
      }
      continue;
    }
    for (int64_t first = 0; first < outs; first += kLanes) {
      V half[5][3];
#pragma GCC unroll 5
      for (int i = 0; i < 5; ++i) {
        V u[5];
#pragma GCC unroll 5
        for (int j = 0; j < 5; ++j) u[j] = load(packed + ((5 * i + j) * blocks * f.in + unit) * 16 + first);
        filter_adjoint(u, half[i]);
      }
      float taps[9][kLanes];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        const V column[5] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j]};
        V w[3];
        filter_adjoint(column, w);
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) store(taps[3 * i + j], w[i]);
      }
      for (int64_t o = 0; o < std::min<int64_t>(kLanes, outs - first); ++o) {
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) to[(first + o) * step + t] = taps[t][o];
      }
    }
  }
}
