// Exact-area resizing of interleaved RGB rows, difference frames, and sums.

typedef float Pixel __attribute__((vector_size(16)));  // RGB and the next pixel's R
typedef float VHalf __attribute__((vector_size(BK_LANES * sizeof(float) / 2)));
typedef double VDouble __attribute__((vector_size(BK_LANES * sizeof(float))));

// out[j] (+)= the sum over K rows of weight[k] * rows[k][j], taken in A: float, or uint16_t where it is exact (and half the
// work).
template <class A, int K, bool kAdd, class E>
static void mix(const E* __restrict rows, int64_t stride, const float* __restrict weight, int64_t n, float* __restrict out) {
  A w[K];
  for (int k = 0; k < K; ++k) w[k] = static_cast<A>(weight[k]);
  for (int64_t j = 0; j < n; ++j) {
    A sum = 0;
    for (int k = 0; k < K; ++k) sum = static_cast<A>(sum + rows[k * stride + j] * w[k]);
    out[j] = kAdd ? out[j] + static_cast<float>(sum) : static_cast<float>(sum);
  }
}

template <class A, class E>
static void mix_rows(const E* rows, int64_t stride, const float* weight, int64_t taps, int64_t n, float* out) {
  switch (taps) {
    case 1: return mix<A, 1, false>(rows, stride, weight, n, out);
    case 2: return mix<A, 2, false>(rows, stride, weight, n, out);
    case 3: return mix<A, 3, false>(rows, stride, weight, n, out);
    case 4: return mix<A, 4, false>(rows, stride, weight, n, out);
  }
  mix<A, 5, false>(rows, stride, weight, n, out);
  int64_t k = 5;
  for (; k + 4 <= taps; k += 4) mix<A, 4, true>(rows + k * stride, stride, weight + k, n, out);
  for (; k < taps; ++k) mix<A, 1, true>(rows + k * stride, stride, weight + k, n, out);
}

// Area sums -> pixels as the convention keeps them, rounded as a division rounds.
template <Pixels kPixels>
static void finish(float* y, int64_t n, float area) {
  constexpr float kWhole = 1 << 23;  // added and taken away, it rounds to whole numbers, halves to even
  const float share = 1 / area;
  for (int64_t i = 0; i < n; ++i) {
    float v = y[i] * share;
    if constexpr (kLanes > 4)
      v = __builtin_fmaf(__builtin_fmaf(-v, area, y[i]), share, v);
    else  // without fused multiply-add
      v = y[i] / area;
    if constexpr (kPixels == Pixels::rounded) v = (v + kWhole) - kWhole;
    if constexpr (kPixels == Pixels::unit) v = v < 1 / 255.0f ? 1 / 255.0f : v;
    y[i] = v;
  }
}

// Targets of `count` <= kRows mixed rows, of K source pixels each or, for K = 0, of their own. Ahead of each, three cache lines
// of what is read next come into L2, `step` bytes on from target to target.
template <int K>
static void mix_columns(const float* mixed, int64_t stride, const Axis& columns, int64_t count, const char* ahead, int64_t step,
                        float* y) {
  const int64_t size = columns.size;
  for (int64_t j = 0; j < size; ++j, ahead += step, y += 3) {
    for (int line = 0; line < 3; ++line) __builtin_prefetch(ahead + 64 * line, 0, 2);
    const float* in = mixed + 3 * (K ? columns.window[j] : columns.first[j]);
    const float* weight = K ? columns.window_weight.data() + j * K : columns.weight.data() + columns.begin[j];
    const int64_t taps = K ? K : columns.begin[j + 1] - columns.begin[j];
    Pixel sum[kRows] = {};
    for (int64_t k = 0; k < taps; ++k, in += 3) {
      for (int r = 0; r < kRows; ++r) {
        Pixel v;
        __builtin_memcpy(&v, in + r * stride, sizeof(v));
        sum[r] += v * weight[k];
      }
    }
    if (j + 1 < size && count == kRows) {
      for (int r = 0; r < kRows; ++r) __builtin_memcpy(y + 3 * r * size, &sum[r], sizeof(Pixel));
    } else {  // the next row is there already
      for (int64_t r = 0; r < count; ++r) __builtin_memcpy(y + 3 * r * size, &sum[r], 3 * sizeof(float));
    }
  }
}

// Interleaved rows (x's first pixel is the axes' first) -> y (size rows, size columns, 3) of pixels. mixed holds kRows rows
// of the axis' extent and one float more.
template <class A, class E>
static void resize(const E* x, int64_t stride, const Axis& rows, const Axis& columns, float area, Pixels pixels, float* mixed,
                   float* y) {
  const int64_t size = rows.size, width = 3 * columns.extent, mixed_stride = width + 4;
  for (int64_t i = 0; i < size; i += kRows) {
    const int64_t count = std::min<int64_t>(kRows, size - i);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t k = rows.begin[i + r];
      mix_rows<A>(x + rows.first[i + r] * stride, stride, rows.weight.data() + k, rows.begin[i + r + 1] - k, width,
               mixed + r * mixed_stride);
    }
    const int64_t next = std::min(i + kRows, size - 1), last = std::min(i + 2 * kRows, size) - 1;
    const char* ahead = reinterpret_cast<const char*>(x + rows.first[next] * stride);
    const int64_t step = (reinterpret_cast<const char*>(x + rows.first[last] * stride + width) - ahead) / size;
    const auto across = std::is_same_v<E, float> ? mix_columns<0>  // differences may be NaN, and zero times that is
                        : columns.taps == 2      ? mix_columns<2>
                        : columns.taps == 3      ? mix_columns<3>
                        : columns.taps == 4      ? mix_columns<4>
                        : columns.taps == 5      ? mix_columns<5>
                        : columns.taps == 6      ? mix_columns<6>
                                                 : mix_columns<0>;
    across(mixed, mixed_stride, columns, count, ahead, step, y + i * size * 3);
    const auto finished = pixels == Pixels::exact ? finish<Pixels::exact>
                          : pixels == Pixels::unit ? finish<Pixels::unit>
                                                   : finish<Pixels::rounded>;
    finished(y + i * size * 3, count * size * 3, area);
  }
}

static void sums(const float* x, int64_t n, double* sum, double* square) {
  constexpr int kParts = 4, kStep = kLanes / 2;
  VDouble s[kParts] = {}, q[kParts] = {};
  int64_t i = 0;
  for (; i + kParts * kStep <= n; i += kParts * kStep) {
    for (int p = 0; p < kParts; ++p) {
      VHalf v;
      __builtin_memcpy(&v, x + i + p * kStep, sizeof(v));
      const VDouble d = __builtin_convertvector(v, VDouble);
      s[p] += d;
      q[p] += d * d;
    }
  }
  *sum = *square = 0;
  for (int p = 0; p < kParts; ++p) {
    for (int j = 0; j < kStep; ++j) {
      *sum += s[p][j];
      *square += q[p][j];
    }
  }
  for (; i < n; ++i) {
    *sum += x[i];
    *square += static_cast<double>(x[i]) * x[i];
  }
}

// before <- (after - before) / (after + before + eps)
static void differences(float* __restrict before, const float* __restrict after, int64_t n, float eps) {
  for (int64_t i = 0; i < n; ++i) before[i] = (after[i] - before[i]) / (after[i] + before[i] + eps);
}

static void to_planes(const float* __restrict x, int64_t n, float* __restrict y) {
  for (int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < 3; ++c) y[c * n + i] = x[3 * i + c];
  }
}
