// Area sums on processors that place a vector's bytes at will (AVX-512 VBMI) and multiply them by fours (VNNI): along the
// row first, of each row as it lies, whatever its whole weights are; then down the rows in floats. Included in AVX-512's
// namespace.

#pragma GCC push_options
#pragma GCC target("avx512vbmi,avx512vnni")

// Sums of the bytes of one row of targets, in y: of kQuads fours of columns and kTaps rows of the picture or, for 0, of as many
// as there are. Weights are bytes with a sign; where they are not, they are taken for those without one, and 128 from each byte.
template <int kQuads, int kTaps, bool kLess128, bool kWide>
static void mix_quads(const uint8_t* x, int64_t stride, const float* weight, int64_t any_taps, const Axis& columns,
                      Ahead& ahead_of, float* y) {
  Ahead ahead = ahead_of;
  const int64_t quads = kQuads ? kQuads : columns.quads_of_vector, taps = kTaps ? kTaps : any_taps;
  const __m512i begin = _mm512_set1_epi32(kLess128 ? static_cast<int32_t>(128 * columns.total) : 0);
  const Quad* const end = columns.quads.data() + columns.quads.size();
  for (const Quad* quad = columns.quads.data(); quad != end; quad += quads, y += kLanes) {
    for (int64_t p = 0; p < kAheadOfVector / kRows; ++p) ahead();
    V sum{};
    for (int64_t k = 0; k < taps; ++k) {
      __m512i sums = begin;
      for (int64_t q = 0; q < quads; ++q) {
        const uint8_t* in = x + k * stride + quad[q].start;
        const __m512i place = load_whole(quad[q].place), w = load_whole(quad[q].weight);
        const __m512i bytes = kWide ? _mm512_permutex2var_epi8(load_whole(in), place, load_whole(in + sizeof(__m512i)))
                                    : _mm512_permutexvar_epi8(place, load_whole(in));
        sums = kLess128 ? _mm512_dpbusd_epi32(sums, w, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)))
                        : _mm512_dpbusd_epi32(sums, bytes, w);
      }
      sum += reinterpret_cast<V>(_mm512_cvtepi32_ps(sums)) * weight[k];
    }
    store(y, sum);
  }
  ahead_of = ahead;
}

#pragma GCC pop_options

template <int kQuads, bool kLess128>
static auto mix_quads_of(int64_t taps) {
  return taps == 2   ? mix_quads<kQuads, 2, kLess128, false>
         : taps == 3 ? mix_quads<kQuads, 3, kLess128, false>
         : taps == 4 ? mix_quads<kQuads, 4, kLess128, false>
         : taps == 5 ? mix_quads<kQuads, 5, kLess128, false>
                     : mix_quads<kQuads, 0, kLess128, false>;
}

// Sums of the bytes of targets' rows [i, i + count), in y.
static void quad_rows(const Picture& from, int64_t i, int64_t count, Ahead& ahead, float* y, int64_t y_stride) {
  const Axis &rows = from.rows, &columns = from.columns;
  const auto of_rows = [&](auto less_128) {
    constexpr bool kLess128 = decltype(less_128)::value;
    return columns.wide_quads            ? mix_quads<0, 0, kLess128, true>
           : columns.quads_of_vector == 1 ? mix_quads_of<1, kLess128>(rows.taps)
           : columns.quads_of_vector == 2 ? mix_quads_of<2, kLess128>(rows.taps)
                                          : mix_quads<0, 0, kLess128, false>;
  };
  const auto mix = columns.most > 127 ? of_rows(std::true_type{}) : of_rows(std::false_type{});
  for (int64_t r = i; r < i + count; ++r, y += y_stride)
    mix(from.x + rows.window[r] * from.stride, from.stride, &rows.window_weight[r * rows.taps], rows.taps, columns, ahead, y);
}
