// Exact-area resizing of interleaved RGB rows and, while these are hot, what is made of them: difference frames, their
// averages, and sums.

typedef float Pixel __attribute__((vector_size(16)));  // RGB and the next pixel's R
typedef float VHalf __attribute__((vector_size(BK_LANES * sizeof(float) / 2)));
typedef double VDouble __attribute__((vector_size(BK_LANES * sizeof(float))));

// What is read for the next rows comes into L2 while these are worked on: at most a line at a time, evenly, so that memory
// is never waited for and never idle. In turn from each quarter, which lie in different pages: some processors fetch ahead
// by themselves within a page, and bring half as much again when asked in four.
class Ahead {
 public:
  Ahead(const char* begin, const char* end, int64_t times)
      : at_(begin), quarter_((end - begin) / 4), end_(begin + 4 * quarter_), step_(lesser(64, (end - begin) / times)) {}

  BK_INLINE void operator()() {
    __builtin_prefetch(at_, 0, 2);
    at_ += quarter_;
    if (at_ >= end_) at_ += step_ - 4 * quarter_;
  }

 private:
  const char* at_;
  int64_t quarter_;
  const char* end_;
  int64_t step_;
};

constexpr int64_t kAheadOfVector = 8;  // times for a vector of kRows rows, where they are mixed by vectors

// --- Any weights ------------------------------------------------------------------------------------------------------

// out[j] (+)= the sum over K rows of weight[k] * rows[k][j], taken in A: float, or uint16_t where it is exact (and half the
// work).
template <class A, int K, bool kAdd>
static void mix(const uint8_t* __restrict rows, int64_t stride, const float* __restrict weight, int64_t n,
                float* __restrict out) {
  A w[K];
  for (int k = 0; k < K; ++k) w[k] = static_cast<A>(weight[k]);
  for (int64_t j = 0; j < n; ++j) {
    A sum = 0;
    for (int k = 0; k < K; ++k) sum = static_cast<A>(sum + rows[k * stride + j] * w[k]);
    out[j] = kAdd ? out[j] + static_cast<float>(sum) : static_cast<float>(sum);
  }
}

template <class A>
static void mix_rows(const uint8_t* rows, int64_t stride, const float* weight, int64_t taps, int64_t n, float* out) {
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

// kRows rows of targets, each of K source pixels or, for K = 0, of columns.taps.
template <int K>
static void mix_columns(const float* mixed, int64_t stride, const Axis& columns, Ahead& ahead_of, float* y, int64_t y_stride) {
  Ahead ahead = ahead_of;
  const int64_t taps = K ? K : columns.taps;
  for (int64_t j = 0; j < columns.size; ++j, y += 3) {
    ahead();
    const float* in = mixed + 3 * columns.window[j];
    const float* weight = columns.window_weight.data() + j * taps;
    Pixel sum[kRows] = {};
    for (int64_t k = 0; k < taps; ++k, in += 3) {
      for (int r = 0; r < kRows; ++r) {
        Pixel v;
        __builtin_memcpy(&v, in + r * stride, sizeof(v));
        sum[r] += v * weight[k];
      }
    }
    for (int r = 0; r < kRows; ++r) __builtin_memcpy(y + r * y_stride, &sum[r], sizeof(Pixel));
  }
  ahead_of = ahead;
}

// --- Whole weights, on processors that multiply bytes and shorts in pairs ---------------------------------------------

#ifdef BK_INTRINSICS
#if BK_LANES == 8
typedef __m256i Whole;
#define BK_WHOLE(OP) _mm256_##OP
#else
typedef __m512i Whole;
#define BK_WHOLE(OP) _mm512_##OP
#endif

static BK_INLINE Whole load_whole(const void* p) {
  Whole v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

// Out of two vectors' halves of 16 bytes, low's first: what comes first and what comes second.
static BK_INLINE void in_order(Whole& low, Whole& high) {
#if BK_LANES == 8
  const Whole first = _mm256_permute2x128_si256(low, high, 0x20);
  high = _mm256_permute2x128_si256(low, high, 0x31);
#else
  const Whole first = _mm512_permutex2var_epi64(low, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), high);
  high = _mm512_permutex2var_epi64(low, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), high);
#endif
  low = first;
}

// Two pixels and more, in 16 bytes, at each of the places.
static BK_INLINE Whole load_pixels(const int16_t* in, const int64_t* pixel) {
  const auto at = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 3 * pixel[i])); };
  const __m256i two = _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
#if BK_LANES == 8
  return two;
#else
  return _mm512_inserti64x4(_mm512_castsi256_si512(two),
                            _mm256_inserti128_si256(_mm256_castsi128_si256(at(2)), at(3), 1), 1);
#endif
}

static BK_INLINE void store_pixels(float* y, V v) {
#if BK_LANES == 8
  _mm_storeu_ps(y, _mm256_castps256_ps128(v));
  _mm_storeu_ps(y + 3, _mm256_extractf128_ps(v, 1));
#else
  _mm_storeu_ps(y, _mm512_castps512_ps128(v));
  _mm_storeu_ps(y + 3, _mm512_extractf32x4_ps(v, 1));
  _mm_storeu_ps(y + 6, _mm512_extractf32x4_ps(v, 2));
  _mm_storeu_ps(y + 9, _mm512_extractf32x4_ps(v, 3));
#endif
}

// out = the sum over pairs of rows of their bytes times `weight`, n >= a vector of them. Shorts hold sums of bytes for
// weights that come to at most 127; for more, up to 255, 128 is taken from each byte.
template <int kPairs, bool kLess128>
static void mix_bytes(const uint8_t* const* rows, const uint16_t* weight, int64_t any_pairs, int64_t n, int16_t* out) {
  constexpr int64_t kStep = sizeof(Whole);
  constexpr int kHeld = kPairs ? kPairs : 1;
  const int64_t pairs = kPairs ? kPairs : any_pairs;
  const uint8_t* held_rows[2 * kHeld];
  Whole held_weight[kHeld];
  for (int k = 0; k < kPairs; ++k) {
    held_rows[2 * k] = rows[2 * k];
    held_rows[2 * k + 1] = rows[2 * k + 1];
    held_weight[k] = BK_WHOLE(set1_epi16)(static_cast<int16_t>(weight[k]));
  }
  const auto at = [&](int64_t j) {
    Whole low{}, high{};
    for (int64_t k = 0; k < pairs; ++k) {
      const uint8_t* const* row = kPairs ? held_rows : rows;
      Whole a = load_whole(row[2 * k] + j), b = load_whole(row[2 * k + 1] + j);
      if constexpr (kLess128) {
        a ^= BK_WHOLE(set1_epi8)(-128);
        b ^= BK_WHOLE(set1_epi8)(-128);
      }
      const Whole w = kPairs ? held_weight[k] : BK_WHOLE(set1_epi16)(static_cast<int16_t>(weight[k]));
      const auto products = [&](Whole v) {
        return kLess128 ? BK_WHOLE(maddubs_epi16)(w, v) : BK_WHOLE(maddubs_epi16)(v, w);
      };
      low = BK_WHOLE(add_epi16)(low, products(BK_WHOLE(unpacklo_epi8)(a, b)));
      high = BK_WHOLE(add_epi16)(high, products(BK_WHOLE(unpackhi_epi8)(a, b)));
    }
    in_order(low, high);
    __builtin_memcpy(out + j, &low, kStep);
    __builtin_memcpy(out + j + kStep / 2, &high, kStep);
  };
  int64_t j = 0;
  for (; j + 2 * kStep <= n; j += 2 * kStep) {
    at(j);
    at(j + kStep);
  }
  if (j + kStep <= n) at(j);
  if (n % kStep) at(n - kStep);
}

// As mix_columns, of shorts; `more` is added to each sum, where there is more.
template <int kPairs, bool kMore>
static void mix_shorts(const int16_t* mixed, int64_t stride, const Axis& columns, int32_t more, Ahead& ahead_of, float* y,
                       int64_t y_stride) {
  Ahead ahead = ahead_of;
  constexpr int kPixels = kLanes / 4;
  const __m128i channel_by_channel = _mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1);
#if BK_LANES == 8
  const Whole channels = _mm256_broadcastsi128_si256(channel_by_channel);
#else
  const Whole channels = _mm512_broadcast_i32x4(channel_by_channel);
#endif
  const int64_t size = columns.size, pairs = kPairs ? kPairs : columns.pairs, next = 4 * columns.padded();
  const uint32_t* weight = columns.short_pairs.data();
  const int64_t* pixel = columns.window.data();
  for (int64_t j = 0; j < size; j += kPixels, weight += 4 * kPixels, pixel += kPixels, y += 3 * kPixels) {
    for (int p = 0; p < kPixels; ++p) ahead();
    Whole sum[kRows];
    for (int64_t k = 0; k < pairs; ++k) {
      const Whole w = load_whole(weight + k * next);
      for (int r = 0; r < kRows; ++r) {
        const Whole v = load_pixels(mixed + r * stride + 6 * k, pixel);
        const Whole products = BK_WHOLE(madd_epi16)(BK_WHOLE(shuffle_epi8)(v, channels), w);
        sum[r] = k ? BK_WHOLE(add_epi32)(sum[r], products) : products;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      if constexpr (kMore) sum[r] = BK_WHOLE(add_epi32)(sum[r], BK_WHOLE(set1_epi32)(more));
      store_pixels(y + r * y_stride, BK_WHOLE(cvtepi32_ps)(sum[r]));
    }
  }
  ahead_of = ahead;
}

#if BK_LANES == 16
// The same where a vector's values come out of two vectors of shorts (see Axis::spread).
template <int kPairs, bool kMore>
static void mix_lanes(const int16_t* mixed, int64_t stride, const Axis& columns, int32_t more, Ahead& ahead_of, float* y,
                      int64_t y_stride) {
  Ahead ahead = ahead_of;
  const int64_t pairs = kPairs ? kPairs : columns.pairs;
  const uint16_t* places = columns.lane_places.data();
  const uint32_t* weight = columns.lane_pairs.data();
  for (const int64_t start : columns.lane_start) {
    for (int p = 0; p < kAheadOfVector; ++p) ahead();
    const Whole place = load_whole(places);
    Whole sum[kRows];
    for (int64_t k = 0; k < pairs; ++k, weight += kLanes) {
      const Whole w = load_whole(weight);
      for (int r = 0; r < kRows; ++r) {
        const int16_t* in = mixed + r * stride + start + 6 * k;
        const Whole v = _mm512_permutex2var_epi16(load_whole(in), place, load_whole(in + 2 * kLanes));
        const Whole products = _mm512_madd_epi16(v, w);
        sum[r] = k ? _mm512_add_epi32(sum[r], products) : products;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      if constexpr (kMore) sum[r] = _mm512_add_epi32(sum[r], _mm512_set1_epi32(more));
      store(y + r * y_stride, reinterpret_cast<V>(_mm512_cvtepi32_ps(sum[r])));
    }
    places += 2 * kLanes;
    y += kLanes;
  }
  ahead_of = ahead;
}
#endif

// of(the pairs, as a constant; 0 for more than three).
template <class F>
static auto by_pairs(int64_t pairs, const F& of) {
  return pairs == 1   ? of(std::integral_constant<int, 1>{})
         : pairs == 2 ? of(std::integral_constant<int, 2>{})
         : pairs == 3 ? of(std::integral_constant<int, 3>{})
                      : of(std::integral_constant<int, 0>{});
}

template <bool kMore>
static auto across_of(const Axis& columns) {
#if BK_LANES == 16
  if (!columns.lane_start.empty())
    return by_pairs(columns.pairs, [](auto pairs) { return &mix_lanes<decltype(pairs)::value, kMore>; });
#endif
  return by_pairs(columns.pairs, [](auto pairs) { return &mix_shorts<decltype(pairs)::value, kMore>; });
}

#if BK_LANES == 16
#include "bigsmall_inputs_vnni.h"
#endif

// Sums of the bytes of targets' rows [i, i + count), in y; or false, where these axes' are not taken so.
static bool whole_rows(const Picture& from, int64_t i, int64_t count, Ahead& ahead, float* mixed, float* y,
                       int64_t y_stride) {
  const Axis &rows = from.rows, &columns = from.columns;
#if BK_LANES == 16
  if (!columns.quads.empty()) {
    quad_rows(from, i, count, ahead, y, y_stride);
    return true;
  }
#endif
  const int64_t width = 3 * columns.extent, stride = width + kPad;
  if (!rows.fits_bytes || !columns.fits_bytes || width < 4 * kLanes) return false;
  const bool less_128 = rows.total > 127;
  int16_t* shorts = reinterpret_cast<int16_t*>(mixed);
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row[kMostTaps + 1];
    for (int64_t k = 0; k < 2 * rows.pairs; ++k)
      row[k] = from.x + lesser(rows.window[i + r] + k, rows.extent - 1) * from.stride;
    const auto of_bytes = less_128          ? mix_bytes<0, true>
                          : rows.pairs == 1 ? mix_bytes<1, false>
                          : rows.pairs == 2 ? mix_bytes<2, false>
                          : rows.pairs == 3 ? mix_bytes<3, false>
                                            : mix_bytes<0, false>;
    of_bytes(row, &rows.byte_pairs[(i + r) * rows.pairs], rows.pairs, width, shorts + r * stride);
  }
  const auto across = less_128 ? across_of<true>(columns) : across_of<false>(columns);
  across(shorts, stride, columns, static_cast<int32_t>(128 * rows.total * columns.total), ahead, y, y_stride);
  return true;
}
#undef BK_WHOLE
#endif

// --- A frame ----------------------------------------------------------------------------------------------------------

constexpr int64_t kLongest = 128;  // vectors of a run of more than a row

// Of values in each lane: how much they differ from the first one, summed, and squared.
struct Run {
  V first, sum{}, square{};

  BK_INLINE void operator()(V v) {
    const V e = v - first;
    sum += e;
    square += e * e;
  }
};

// Sums of values and of their squares. Those of a few rows are summed in floats, as a run: what is lost there is of the spread
// and not of the values, and equal values have none.
class Sums {
 public:
  // `n` values in each lane.
  BK_INLINE void add(const Run& run, int64_t n) {
    for (int h = 0; h < 2; ++h) {
      const VDouble first = half(run.first, h), sum = half(run.sum, h), all = first * static_cast<double>(n);
      sum_ += all + sum;
      square_ += half(run.square, h) + first * (all + 2.0 * sum);
    }
  }
  void add(double v) {
    rest_ += v;
    rest_square_ += v * v;
  }
  // Of the values over `unit`.
  void write(double* to, double unit) const {
    to[0] = rest_;
    to[1] = rest_square_;
    for (int j = 0; j < kLanes / 2; ++j) {
      to[0] += sum_[j];
      to[1] += square_[j];
    }
    to[0] /= unit;
    to[1] /= unit * unit;
  }

 private:
  static BK_INLINE VDouble half(const V& v, int h) {
    VHalf part;
    __builtin_memcpy(&part, reinterpret_cast<const float*>(&v) + h * (kLanes / 2), sizeof(part));
    return __builtin_convertvector(part, VDouble);
  }
  VDouble sum_{}, square_{};
  double rest_ = 0, rest_square_ = 0;
};

// Area sums -> pixels as the convention keeps them, rounded as a division rounds: equal bytes have equal pixels in any box,
// and a half is a half.
template <Pixels kPixels>
static BK_INLINE V finished(V y, float area, [[maybe_unused]] float share) {
  constexpr float kInteger = 1 << 23;  // added and taken away, it rounds to whole numbers, halves to even
#ifdef BK_INTRINSICS  // and so a fused multiply-add
  V v = y * share;
  v = (y - v * area) * share + v;
#else
  V v = y / area;
#endif
  if constexpr (kPixels == Pixels::rounded) v = (v + kInteger) - kInteger;
  if constexpr (kPixels == Pixels::unit) v = v < 1 / 255.0f ? V{} + 1 / 255.0f : v;
  return v;
}

// A row of n area sums y: its pixels, which may be kept in x, their differences d to those in x, and these times `weight`
// added to `averages`. Rows reach a vector beyond n. Exact pixels stay sums: so does eps, times the area. Whole vectors go on
// with the runs p, of pixels, and q, of differences, or begin them; what is left of the row goes to the sums.
template <Pixels kPixels, bool kDiffer, bool kKeep>
static void use_row(const float* __restrict y, int64_t n, float area, float eps, float* __restrict x, float* __restrict d,
                    float weight, float* __restrict averages, bool begin, Run& run_p, Run& run_q, Sums& of_pixels,
                    Sums& of_differences, Ahead& ahead_of) {
  Ahead ahead = ahead_of;
  const float share = 1 / area;
  const int64_t rest = n / kLanes * kLanes;
  const auto pixels = [&](int64_t i) {
    return kPixels == Pixels::exact ? load(y + i) : finished<kPixels>(load(y + i), area, share);
  };
  const auto difference = [&](V after, V before) { return (after - before) / (after + before + eps); };
  if (begin) {
    run_p = {pixels(0)};
    run_q = {difference(run_p.first, load(x))};
  }
  Run p = run_p, q = run_q;
  for (int64_t i = 0; i < rest; i += kLanes) {
    ahead();
    const V after = pixels(i);
    if constexpr (kDiffer) {
      const V v = difference(after, load(x + i));
      store(d + i, v);
      store(averages + i, load(averages + i) + v * weight);
      q(v);
    }
    if constexpr (kKeep) {
      store(x + i, after);
      p(after);
    }
  }
  ahead_of = ahead;
  run_p = p;
  run_q = q;
  if (rest == n) return;
  const V after = pixels(rest), v = difference(after, load(x + rest));
  for (int64_t i = rest; i < n; ++i) {
    if constexpr (kDiffer) {
      d[i] = v[i - rest];
      averages[i] += d[i] * weight;
      of_differences.add(d[i]);
    }
    if constexpr (kKeep) {
      x[i] = after[i - rest];
      of_pixels.add(x[i]);
    }
  }
}

// Channel C of interleaved pixels: from each lane of the three vectors just one value is of it.
template <int C, int... J>
static BK_INLINE V channel(const V (&v)[3], std::integer_sequence<int, J...>) {
  constexpr auto of = [](int lane) { return ((lane - C + kLanes) * 11 % kLanes * 3 + C) / kLanes; };  // 3 * 11 is 1, modulo 4 to 16
  const V two = pick<(of(J) == 1 ? kLanes + J : J)...>(v[0], v[1]), all = pick<(of(J) == 2 ? kLanes + J : J)...>(two, v[2]);
  return pick<((3 * J + C) % kLanes)...>(all, all);
}

// A row of area sums y -> its pixels, in three planes.
template <Pixels kPixels>
static void split(const float* __restrict y, int64_t size, float area, float* __restrict planes, int64_t plane) {
  constexpr std::make_integer_sequence<int, kLanes> lanes{};
  const float share = 1 / area;
  for (int64_t j = 0; j < size; j += kLanes, y += 3 * kLanes) {
    V v[3];
    for (int k = 0; k < 3; ++k) v[k] = finished<kPixels>(load(y + k * kLanes), area, share);
    const V channels[3] = {channel<0>(v, lanes), channel<1>(v, lanes), channel<2>(v, lanes)};
    for (int c = 0; c < 3; ++c) {
      float* to = planes + c * plane + j;
      if (j + kLanes <= size)
        store(to, channels[c]);
      else
        __builtin_memcpy(to, &channels[c], (size - j) * sizeof(float));
    }
  }
}

// The averages in target row s, from its row of sums.
static void average(const float* sums, const Axis& down, int64_t s, float* y) {
  const float area = static_cast<float>(down.total * down.total);
  for (int64_t j = 0; j < down.size; ++j) {
    const float* in = sums + 3 * down.first[j];
    Pixel sum{};
    for (int64_t k = down.begin[j]; k < down.begin[j + 1]; ++k, in += 3) {
      Pixel v;
      __builtin_memcpy(&v, in, sizeof(v));
      sum += v * down.weight[k];
    }
    for (int64_t c = 0; c < 3; ++c) y[(c * down.size + s) * down.size + j] = sum[c] / area;
  }
}

// memory: `scratch` floats
template <Pixels kPixels>
static void frame_of(const Picture& from, const Use& use, float* memory) {
  const Axis &rows = from.rows, &columns = from.columns;
  const Axis* down = use.down;
  const int64_t size = rows.size, n = 3 * size, width = 3 * columns.extent, mixed_stride = width + kPad;
  const int64_t stride = 3 * columns.padded() + kPad;
  float *mixed = memory, *y = mixed + kRows * mixed_stride, *d = y + kRows * stride, *averages = d + stride;
  const double whole = rows.total * columns.total;
  const float area = static_cast<float>(kPixels == Pixels::unit ? 255 * whole : whole);
  const float eps = kPixels == Pixels::exact ? use.eps * area : use.eps;
  const auto use_of = !down       ? use_row<kPixels, false, true>
                      : use.keep ? use_row<kPixels, true, true>
                                 : use_row<kPixels, true, false>;
  const auto along = rows.fits_bytes ? mix_rows<uint16_t> : mix_rows<float>;
  const auto across = columns.taps == 2   ? mix_columns<2>
                      : columns.taps == 3 ? mix_columns<3>
                      : columns.taps == 4 ? mix_columns<4>
                      : columns.taps == 5 ? mix_columns<5>
                      : columns.taps == 6 ? mix_columns<6>
                                          : mix_columns<0>;
  const bool by_vector = !columns.quads.empty() || !columns.lane_start.empty();
  const int64_t times = (by_vector ? kAheadOfVector * ceil_div(n, kLanes) : size) + kRows * n / kLanes;
  Sums of_pixels, of_differences;
  int64_t s = 0;  // the target of averages at hand
  std::fill_n(averages, n, 0.0f);
  for (int64_t i = 0; i < size; i += kRows) {
    const int64_t count = lesser(kRows, size - i);
    const bool end = i + kRows >= size;  // the next picture's begin comes next
    const int64_t next = end ? 0 : i + kRows, last = lesser(next + kRows, size) - 1;
    const uint8_t* x = end ? from.next : from.x;
    const int64_t last_row = lesser(rows.first[last] + rows.taps, rows.extent) - 1;
    Ahead ahead(reinterpret_cast<const char*>(x + rows.first[next] * from.stride),
                reinterpret_cast<const char*>(x + last_row * from.stride + width), times);
#ifdef BK_INTRINSICS
    if (!whole_rows(from, i, count, ahead, mixed, y, stride))
#endif
    {
      for (int64_t r = 0; r < count; ++r) {
        const int64_t k = rows.begin[i + r];
        along(from.x + rows.first[i + r] * from.stride, from.stride, rows.weight.data() + k,
                  rows.begin[i + r + 1] - k, width, mixed + r * mixed_stride);
      }
      across(mixed, mixed_stride, columns, ahead, y, stride);
    }
    Run p, q;
    int64_t run = 0;  // vectors in them
    for (int64_t r = i; r < i + count; ++r) {
      float* row = y + (r - i) * stride;
      const float weight = down ? down->weight[down->begin[s] + r - down->first[s]] : 0;
      use_of(row, n, area, eps, use.x + r * n, d, weight, averages, run == 0, p, q, of_pixels, of_differences, ahead);
      run += n / kLanes;
      if (run > 0 && (run + n / kLanes > kLongest || r + 1 == i + count)) {
        if (use.keep) of_pixels.add(p, run);
        if (down) of_differences.add(q, run);
        run = 0;
      }
      if (use.big) split<kPixels>(row, size, area, use.big + r * size, size * size);
      if (!down || r + 1 < down->first[s] + down->begin[s + 1] - down->begin[s]) continue;
      average(averages, *down, s, use.small);
      ++s;  // of which this row may be a part too
      const float part = s < down->size && down->first[s] <= r ? down->weight[down->begin[s]] : 0;
      for (int64_t j = 0; j < n; ++j) averages[j] = part > 0 ? d[j] * part : 0;
    }
  }
  if (use.keep) of_pixels.write(use.of_pixels, kPixels == Pixels::exact ? whole : 1);
  if (down) of_differences.write(use.of_differences, 1);
}

static void frame(const Picture& from, const Use& use, float* memory) {
  const auto of = from.pixels == Pixels::exact   ? frame_of<Pixels::exact>
                  : from.pixels == Pixels::unit ? frame_of<Pixels::unit>
                                                : frame_of<Pixels::rounded>;
  of(from, use, memory);
}
