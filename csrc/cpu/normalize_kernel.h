// The normalisers' arithmetic on spans of at most kSpan values; S gives the values (Values or Differences).

// Sum and sum of squares of v - shift.
template <class R, class S>
static BK_INLINE void shifted_sums(const S& v, int64_t n, R shift, double* sum, double* square) {
  constexpr int kWide = 4 * kLanes, kFlush = 16;  // few additions in R, then on in double
  double s[kWide] = {}, q[kWide] = {};
  int64_t i = 0;
  while (i + kWide <= n) {
    R part_s[kWide] = {}, part_q[kWide] = {};
    for (int k = 0; k < kFlush && i + kWide <= n; ++k, i += kWide) {
      for (int j = 0; j < kWide; ++j) {
        const R e = v(i + j) - shift;
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
    const double e = static_cast<double>(v(i)) - static_cast<double>(shift);
    *sum += e;
    *square += e * e;
  }
}

template <class E>
static Moments moments(const Values<E>& v, int64_t n) {
  using R = Real<E>;
  // About the first value: a constant span gives 0 exactly. Where that is far from the rest, about the mean.
  R shift = v(0);
  double sum, square;
  shifted_sums<R>(v, n, shift, &sum, &square);
  if (sum * sum / n > 0.9 * square) {
    shift = static_cast<R>(shift + sum / n);
    shifted_sums<R>(v, n, shift, &sum, &square);
  }
  if (std::is_same_v<R, float> && (sum != 0 || square != 0) && !(square > 1e-25 && square < 1e30)) {
    sum = square = 0;  // squares beyond float
    for (int64_t i = 0; i < n; ++i) {
      const double e = static_cast<double>(v(i)) - static_cast<double>(shift);
      sum += e;
      square += e * e;
    }
  }
  return {n, shift + sum / n, square - sum * sum / n};
}

// Of bytes exactly.
static Moments moments(const Values<uint8_t>& v, int64_t n) {
  static_assert(kSpan * 255 * 255 < (int64_t{1} << 32));
  uint32_t sum = 0, square = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t x = v.x[i];
    sum += x;
    square += x * x;
  }
  return {n, static_cast<double>(sum) / n, static_cast<double>(uint64_t{square} * n - uint64_t{sum} * sum) / n};
}

template <class E>
static Moments moments(const Differences<E>& v, int64_t n) {
  alignas(64) Real<E> d[kSpan] = {};
  for (int64_t i = 0; i < n; ++i) d[i] = v(i);
  return moments(Values<Real<E>>{d}, n);
}

template <class S, class R>
static void normalize(const S& v, int64_t n, double mean, double scale, R* __restrict y) {
  const R high = static_cast<R>(mean), low = std::isfinite(mean) ? static_cast<R>(mean - high) : 0, s = static_cast<R>(scale);
  for (int64_t i = 0; i < n; ++i) y[i] = ((v(i) - high) - low) * s;
}

static void rescale(float* x, int64_t n, float shift, float factor) {
  for (int64_t i = 0; i < n; ++i) x[i] = (x[i] - shift) * factor;
}
