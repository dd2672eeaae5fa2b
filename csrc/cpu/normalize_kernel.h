// The normalisers' arithmetic on spans of at most kSpan elements. `ahead` is the distance from a pixel to the same pixel of
// the next frame; 0: the pixels themselves are normalised, not their differences.

template <class E, class R>
static BK_INLINE const R* values(const E* x, int64_t ahead, int64_t n, R eps, R* scratch) {
  if (ahead == 0) {
    if constexpr (std::is_same_v<E, R>) return x;
    for (int64_t i = 0; i < n; ++i) scratch[i] = widen(x[i]);
    return scratch;
  }
  const E* next = x + ahead;
  for (int64_t i = 0; i < n; ++i) {
    const R before = widen(x[i]), after = widen(next[i]);
    scratch[i] = (after - before) / (after + before + eps);
  }
  return scratch;
}

// Sum and sum of squares of v - shift, in lanes of R.
template <class R>
static BK_INLINE void shifted_sums(const R* v, int64_t n, R shift, double* sum, double* square) {
  constexpr int kWide = 4 * kLanes, kFlush = 16;  // few additions in R, then on in double
  double s[kWide] = {}, q[kWide] = {};
  int64_t i = 0;
  while (i + kWide <= n) {
    R part_s[kWide] = {}, part_q[kWide] = {};
    for (int k = 0; k < kFlush && i + kWide <= n; ++k, i += kWide) {
      for (int j = 0; j < kWide; ++j) {
        const R e = v[i + j] - shift;
        part_s[j] += e;
        part_q[j] += e * e;
      }
    }
    for (int j = 0; j < kWide; ++j) {
      s[j] += part_s[j];
      q[j] += part_q[j];
    }
  }
  *sum = *square = 0;
  for (int j = 0; j < kWide; ++j) {
    *sum += s[j];
    *square += q[j];
  }
  for (; i < n; ++i) {
    const double e = static_cast<double>(v[i]) - static_cast<double>(shift);
    *sum += e;
    *square += e * e;
  }
}

template <class E>
static Moments moments(const E* x, int64_t ahead, int64_t n, double eps) {
  if constexpr (std::is_same_v<E, uint8_t>) {
    if (ahead == 0) {  // exact
      static_assert(kSpan * 255 * 255 < (int64_t{1} << 32));
      uint32_t sum = 0, square = 0;
      for (int64_t i = 0; i < n; ++i) {
        const uint32_t v = x[i];
        sum += v;
        square += v * v;
      }
      return {n, static_cast<double>(sum) / n,
              static_cast<double>(uint64_t{square} * n - uint64_t{sum} * sum) / n};
    }
  }
  using R = Real<E>;
  alignas(64) R scratch[kSpan];
  const R* v = values<E, R>(x, ahead, n, static_cast<R>(eps), scratch);
  // Twice: about the first value (a constant span gives 0 exactly), then about the mean (nothing cancels).
  double sum, square;
  shifted_sums<R>(v, n, v[0], &sum, &square);
  const R shift = static_cast<R>(v[0] + sum / n);
  shifted_sums<R>(v, n, shift, &sum, &square);
  if (std::is_same_v<R, float> && (sum != 0 || square != 0) && !(square > 1e-25 && square < 1e30)) {
    sum = square = 0;  // squares beyond float
    for (int64_t i = 0; i < n; ++i) {
      const double e = static_cast<double>(v[i]) - static_cast<double>(shift);
      sum += e;
      square += e * e;
    }
  }
  return {n, shift + sum / n, square - sum * sum / n};
}

template <class E>
static void normalize(const E* x, int64_t ahead, int64_t n, double eps, double mean, double scale, Real<E>* y) {
  using R = Real<E>;
  alignas(64) R scratch[kSpan];
  const R* v = values<E, R>(x, ahead, n, static_cast<R>(eps), scratch);
  const R high = static_cast<R>(mean), low = std::isfinite(mean) ? static_cast<R>(mean - high) : 0, s = static_cast<R>(scale);
  for (int64_t i = 0; i < n; ++i) y[i] = ((v[i] - high) - low) * s;
}
