// double_conv2d_pool in bfloat16 on processors that multiply tiles of it (AMX): direct convolutions. Included inside a namespace
// of its own, after vec.h.
//
// A thread walks down an image some rows at a time, as the float kernel does, with the rows in bfloat16. The first
// convolution's outputs are rounded to it, as eager rounds them; sums and means are floats.

#include "tile_conv2d.h"

namespace {

constexpr int64_t kTaken = 8;  // rows of outputs at a time

// Where the first convolution puts its outputs.
struct ToHalves {
  Rows rows;

  void operator()(const float* sums, const V (&bias)[2], int64_t channel, int64_t y, int64_t x, int64_t pixels) const {
    float* to = rows.at(y, x) + channel / 2;
    for (int64_t p = 0; p < pixels; ++p, sums += kValues, to += rows.pixel) {
      const V low = positive(load(sums) + bias[0]), high = positive(load(sums + kLanes) + bias[1]);
      const __m512bh both = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low));
      __builtin_memcpy(to, &both, sizeof(both));
    }
  }
};

// Where the second does: added to the sums of pooled rows [first, last).
struct ToMeans {
  Rows means;
  int64_t pool, first, last, width;

  void operator()(const float* sums, const V (&bias)[2], int64_t channel, int64_t y, int64_t x, int64_t pixels) const {
    const int64_t row = y / pool;
    if (row < first || row >= last) return;
    int64_t column = x / pool, stop = (column + 1) * pool - x;
    float* to = means.at(row, column) + channel;
    for (int64_t p = 0; p < pixels && column < width; ++column, stop += pool, to += means.pixel) {
      V low{}, high{};
      for (const int64_t end = lesser(stop, pixels); p < end; ++p, sums += kValues) {
        low += positive(load(sums) + bias[0]);
        high += positive(load(sums + kLanes) + bias[1]);
      }
      store(to, load(to) + low);
      store(to + kLanes, load(to + kLanes) + high);
    }
  }
};

// --- from and to tensors ----------------------------------------------------------------------------------------------

// Pixels of up to 32 values, which lie in rows of their own from from[i] on (null: zeros), `step` apart.
void interleave(const uint16_t* const (&from)[kValues], int64_t step, int64_t words, int64_t width, float* pixel,
                int64_t pixel_words) {
  if (step != 1 || width < kLanes) {
    for (int64_t x = 0; x < width; ++x, pixel += pixel_words) {
      for (int64_t i = 0; i < 2 * words; ++i) halves(pixel)[i] = from[i] == nullptr ? uint16_t{0} : from[i][x * step];
    }
    return;
  }
  for (int64_t next = 0; next < width; next += kLanes) {
    const int64_t x = lesser(next, width - kLanes);
    const auto value = [&](int64_t i) {
      return from[i] == nullptr ? __m512i{} : _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from[i] + x)));
    };
    V v[kLanes];
    for (int64_t j = 0; j < kLanes; ++j)
      v[j] = j < words ? reinterpret_cast<V>(_mm512_or_si512(value(2 * j), _mm512_slli_epi32(value(2 * j + 1), 16))) : V{};
    transpose(v);
    // Few words: a pixel's half vector reaches into the next ones', which come after it.
    float* to = pixel + x * pixel_words;
    for (int64_t i = 0; i < kLanes; ++i, to += pixel_words) {
      if (words > kLanes / 2)
        store(to, v[i]);
      else
        __builtin_memcpy(to, &v[i], sizeof(V) / 2);
    }
  }
}

// The same of three rows' RGB, which lies side by side: four values at a time, of which the next three overwrite the last.
void interleave_rgb(const uint16_t* const (&rows)[3], int64_t width, float* pixel) {
  constexpr int64_t kRgb = 3 * sizeof(uint16_t);
  char* to = reinterpret_cast<char*>(pixel);
  const auto pixel_at = [&](int64_t x, auto bytes) {
    for (int64_t i = 0; i < 3; ++i) {
      uint64_t rgb = 0;
      if (rows[i] != nullptr) __builtin_memcpy(&rgb, rows[i] + 3 * x, bytes);
      rgb &= (uint64_t{1} << 48) - 1;
      __builtin_memcpy(to + i * kRgb, &rgb, sizeof(rgb));
    }
    to += words_of_few(3) * static_cast<int64_t>(sizeof(float));
  };
  for (int64_t x = 0; x + 1 < width; ++x) pixel_at(x, std::integral_constant<size_t, sizeof(uint64_t)>{});
  pixel_at(width - 1, std::integral_constant<size_t, kRgb>{});  // and nothing behind the row
}

// Rows [first, last) of an image, with a channel's rows `sh` apart and its pixels `sw`.
struct HalfImage {
  const uint16_t* data;
  int64_t channels, height, width, sc, sh, sw;
};

void stage(const HalfImage& image, const Inputs& in, const Rows& to, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) {
    const auto row = [&](int64_t y) { return y < 0 || y >= image.height ? nullptr : image.data + y * image.sh; };
    const bool outside = r < 0 || r >= image.height;
    if (outside) {
      to.zero(r);
    } else if (in.few) {
      const uint16_t* const lines[3] = {row(r - 1), row(r), row(r + 1)};
      if (in.channels == 3 && image.sc == 1 && image.sw == 3) {
        interleave_rgb(lines, image.width, to.at(r, 0));
      } else {
        const uint16_t* from[kValues] = {};
        for (int64_t i = 0; i < 3 * in.channels; ++i) {
          const uint16_t* line = lines[i / in.channels];
          from[i] = line == nullptr ? nullptr : line + i % in.channels * image.sc;
        }
        interleave(from, image.sw, in.words, image.width, to.at(r, 0), to.pixel);
      }
    } else if (image.sc == 1) {
      const uint16_t* pixel = row(r);
      for (int64_t x = 0; x < image.width; ++x, pixel += image.sw) {
        uint16_t* p = halves(to.at(r, x));
        __builtin_memcpy(p, pixel, in.channels * sizeof(uint16_t));
        __builtin_memset(p + in.channels, 0, (2 * in.words - in.channels) * sizeof(uint16_t));
      }
    } else {
      for (int64_t c = 0; c < in.channels; c += kValues) {
        const uint16_t* from[kValues] = {};
        for (int64_t i = 0; i < lesser(kValues, in.channels - c); ++i) from[i] = row(r) + (c + i) * image.sc;
        interleave(from, image.sw, kWords, image.width, to.at(r, 0) + c / 2, to.pixel);
      }
    }
    if (!outside) to.zero_beside(r, image.width);
  }
}

BK_INLINE void store_halves(uint16_t* to, V v) {
  const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
  __builtin_memcpy(to, &rounded, sizeof(rounded));
}

// A row of sums, times `scale`, to a tensor's. `sums` may be overwritten.
void emit(float* sums, int64_t pixel, float scale, int64_t channels, int64_t width, uint16_t* to, int64_t sc, int64_t sw) {
  if (sw == 1 && width >= kLanes) {
    for (int64_t c = 0; c < channels; c += kLanes) {
      for (int64_t next = 0; next < width; next += kLanes) {
        const int64_t x = lesser(next, width - kLanes);
        V v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = load(sums + (x + i) * pixel + c) * scale;
        transpose(v);
        for (int64_t i = 0; i < lesser(kLanes, channels - c); ++i) store_halves(to + (c + i) * sc + x, v[i]);
      }
    }
    return;
  }
  for (int64_t x = 0; x < width; ++x, sums += pixel) {
    uint16_t* const out = halves(sums);  // behind what is still to be read
    for (int64_t c = 0; c < channels; c += kLanes) store_halves(out + c, load(sums + c) * scale);
    if (sc == 1) {
      __builtin_memcpy(to + x * sw, out, channels * sizeof(uint16_t));
    } else {
      for (int64_t c = 0; c < channels; ++c) to[c * sc + x * sw] = out[c];
    }
  }
}

// --- one thread's part ------------------------------------------------------------------------------------------------

struct Workspace {
  Inputs in, in_mid;
  Blocks blocks;
  Rows x, mid, means;
  int64_t size;  // floats of it all

  Workspace(const HalfBlock& a, float* base) : in(a.in, is_few(a.in)), in_mid(a.mid, false), blocks(a.width) {
    Arena arena{base};
    const int64_t pixels = blocks.count * blocks.pixels + 2;  // and what the last tile's rows reach over
    x = arena.ring(kTaken + 4, pixels + kWords, in.words, 1);
    mid = arena.ring(kTaken + 2, pixels, in_mid.words, 1);
    means = arena.ring(kTaken / a.pool + 2, a.width / a.pool, ceil_div(a.out, kValues) * kValues, 0);
    size = arena.size;
  }
};

void image_rows(const HalfBlock& a, const Workspace& w, int64_t image, int64_t begin, int64_t end) {
  const Convolution one{a.filter1, a.bias1, a.mid}, two{a.filter2, a.bias2, a.out};
  const ToHalves to_mid{w.mid};
  const ToMeans to_means{w.means, a.pool, begin, end, a.width / a.pool};
  const HalfImage x{a.x + image * a.x_stride[0], a.in, a.height, a.width, a.x_stride[1], a.x_stride[2], a.x_stride[3]};
  uint16_t* y = a.y + image * a.y_stride[0];
  for (int64_t r = 0; r < w.means.count; ++r) w.means.zero(r);
  const float scale = 1.f / (static_cast<float>(a.pool) * static_cast<float>(a.pool));
  const int64_t last = end * a.pool, around = w.in.few ? 0 : 1;  // rows that are staged beside those computed
  int64_t mid_next = begin * a.pool - 1, x_next = mid_next - around;
  for (int64_t t = begin * a.pool; t < last; t += kTaken) {
    const int64_t stop = lesser(t + kTaken, last);
    while (mid_next <= stop) {  // the second convolution reads one row more on each side
      if (mid_next < 0 || mid_next >= a.height) {
        w.mid.zero(mid_next++);
        continue;
      }
      const int64_t mid_stop = lesser(lesser(mid_next + kTaken, stop + 1), a.height);
      x_next = greater(x_next, mid_next - around);
      stage(x, w.in, w.x, x_next, mid_stop + around);
      x_next = mid_stop + around;
      convolve(one, w.in, w.x, w.blocks, mid_next, mid_stop, to_mid);
      mid_next = mid_stop;
    }
    convolve(two, w.in_mid, w.mid, w.blocks, t, stop, to_means);
    for (; begin < end && (begin + 1) * a.pool <= stop; ++begin) {
      emit(w.means.row(begin), w.means.pixel, scale, a.out, a.width / a.pool, y + begin * a.y_stride[2], a.y_stride[1],
           a.y_stride[3]);
      w.means.zero(begin);
    }
  }
}

}  // namespace

// Floats of workspace a thread needs.
int64_t block_workspace(const HalfBlock& a) { return Workspace(a, nullptr).size; }

// Pooled rows [begin, end), counted through all images.
void block_rows(const HalfBlock& a, float* space, int64_t begin, int64_t end) {
  const Workspace w(a, space);
  std::fill_n(space, w.size, 0.f);  // what lies beside the images is multiplied too, and stays zero
  const TilesInUse tiles(w.blocks.pixels);
  const int64_t height = a.height / a.pool;
  while (begin < end) {
    const int64_t image = begin / height, row = begin % height, rows = lesser(height - row, end - begin);
    image_rows(a, w, image, row, row + rows);
    begin += rows;
  }
}
