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
static BK_INLINE void finish(float* y, int64_t n, float area, Pixels pixels) {
  constexpr float kWhole = 1 << 23;  // added and taken away, it rounds to whole numbers, halves to even
  const float share = 1 / area, least = pixels == Pixels::unit ? 1 / 255.0f : -INFINITY, whole = pixels == Pixels::rounded ? kWhole : 0;
  for (int64_t i = 0; i < n; ++i) {
    float v = y[i] * share;
    if constexpr (kLanes > 4)
      v = __builtin_fmaf(__builtin_fmaf(-v, area, y[i]), share, v);
    else  // without fused multiply-add
      v = y[i] / area;
    v = (v + whole) - whole;
    y[i] = v < least ? least : v;
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
    // The rows to be read next come into L2 while these are mixed across.
    const int64_t next = std::min(i + kRows, size - 1), last = std::min(i + 2 * kRows, size) - 1;
    const char* ahead = reinterpret_cast<const char*>(x + rows.first[next] * stride);
    const char* end = reinterpret_cast<const char*>(x + rows.first[last] * stride + width);
    for (int64_t j = 0; j < size; ++j) {
      for (int line = 0; line < 3 && ahead < end; ++line, ahead += 64) __builtin_prefetch(ahead, 0, 2);
      const float* in = mixed + 3 * columns.first[j];
      Pixel sum[kRows] = {};
      for (int64_t k = columns.begin[j]; k < columns.begin[j + 1]; ++k, in += 3) {
        for (int r = 0; r < kRows; ++r) {
          Pixel v;
          __builtin_memcpy(&v, in + r * mixed_stride, sizeof(v));
          sum[r] += v * columns.weight[k];
        }
      }
      for (int64_t r = 0; r < count; ++r) {
        float* out = y + ((i + r) * size + j) * 3;
        if (j + 1 < size)
          __builtin_memcpy(out, &sum[r], sizeof(Pixel));
        else  // the next row is there already
          __builtin_memcpy(out, &sum[r], 3 * sizeof(float));
      }
    }
    finish(y + i * size * 3, count * size * 3, area, pixels);
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
