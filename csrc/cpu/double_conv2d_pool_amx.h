// double_conv2d_pool in bfloat16 on processors that multiply tiles of it (AMX): direct convolutions, for which every
// product of a tile of up to 16 pixels by 32 values with one of 32 values by 16 outputs is an instruction. Included inside a
// namespace of its own, after vec.h.
//
// A thread walks down an image some rows at a time, as the float kernel does, with the rows in bfloat16. The first
// convolution's outputs are rounded to it, as eager rounds them; sums and means are floats. A tile of few channels reads a
// little beyond a neighbourhood, times zero: a NaN or infinity there reaches its sums.

#include "rings.h"

namespace {

constexpr int64_t kValues = 32;  // values of a tile's row, and outputs that are computed together
constexpr int64_t kWords = kValues / 2;  // of 32 bits
constexpr int64_t kTile = 1024;    // bytes
constexpr int64_t kTileRows = 16;  // at most
constexpr int64_t kTaken = 8;      // rows of outputs at a time

// As vec.h's relu, NaN and all, in one instruction: of two operands that are not unlike it takes the second.
BK_INLINE V positive(V v) { return reinterpret_cast<V>(_mm512_max_ps(__m512{}, reinterpret_cast<__m512>(v))); }

// Two bfloat16 in a float's place.
BK_INLINE uint16_t* halves(float* p) { return reinterpret_cast<uint16_t*>(p); }

// --- tiles ------------------------------------------------------------------------------------------------------------

// 0 to 3 are sums (two of pixels times two of outputs), 4 and 5 pixels, 6 and 7 filters.
#define BK_TILE_ZERO(T) asm volatile("tilezero %%tmm" #T ::: "memory")
#define BK_TILE_LOAD(T, P, STEP) asm volatile("tileloadd (%0,%1,1), %%tmm" #T ::"r"(P), "r"(STEP) : "memory")
#define BK_TILE_STORE(T, P, STEP) asm volatile("tilestored %%tmm" #T ", (%0,%1,1)" ::"r"(P), "r"(STEP) : "memory")
#define BK_TILE_ADD(TO, A, B) asm volatile("tdpbf16ps %tmm" #B ", %tmm" #A ", %tmm" #TO)

// This thread's tiles, while it is alive.
class TilesInUse {
 public:
  explicit TilesInUse(int64_t pixels) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, unused[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int t = 0; t < 8; ++t) {
      config.bytes[t] = 64;
      config.rows[t] = static_cast<uint8_t>(t < 6 ? pixels : kTileRows);
    }
    asm volatile("ldtilecfg (%0)" ::"r"(&config) : "memory");
  }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
  ~TilesInUse() { asm volatile("tilerelease"); }
};

// --- layers -----------------------------------------------------------------------------------------------------------

// How a layer's inputs lie in rows: few channels once for each of the three rows that a pixel's outputs see, so that one
// tile's row holds a whole 3x3 neighbourhood; more in whole tile rows.
struct Inputs {
  int64_t channels;
  bool few;
  int64_t words, rows, steps;  // words of a pixel, rows that are read, tiles of each of them

  Inputs(int64_t channels, bool few)
      : channels(channels),
        few(few),
        words(few ? words_of_few(channels) : ceil_div(channels, kValues) * kWords),
        rows(few ? 1 : 3),
        steps(tiles_of(channels, few) / rows) {}
};

// A row of an image in blocks of pixels, of one size; the last may reach beyond the row.
struct Blocks {
  int64_t width, count, pixels;
  explicit Blocks(int64_t width)
      : width(width), count(ceil_div(width, kTileRows)), pixels(ceil_div(width, count)) {}
};

struct Convolution {
  const uint16_t* filter;  // [32 outputs][row][tile of a row][2 x 16 outputs] tiles
  const float* bias;
  int64_t out;
};

// Rows [first, last) of a convolution: `to` takes each block's sums, [pixel][32 outputs].
template <class To>
void convolve(const Convolution& layer, const Inputs& in, const Rows& from, const Blocks& blocks, int64_t first,
              int64_t last, const To& to) {
  alignas(64) float sums[2][kTileRows * kValues];
  const int64_t items = (last - first) * blocks.count, pixel = from.pixel * static_cast<int64_t>(sizeof(float));
  const int64_t filter_step = 64, sum_step = kValues * sizeof(float);
  for (int64_t n = 0; n < layer.out; n += kValues) {
    const char* filter = reinterpret_cast<const char*>(layer.filter) + n / kValues * in.rows * in.steps * 2 * kTile;
    const V bias[2] = {load(layer.bias + n), load(layer.bias + n + kLanes)};
    for (int64_t item = 0; item < items; item += 2) {
      const int64_t second = lesser(item + 1, items - 1);  // the last one may be alone, and is done twice
      const int64_t y[2] = {first + item / blocks.count, first + second / blocks.count};
      const int64_t x[2] = {item % blocks.count * blocks.pixels, second % blocks.count * blocks.pixels};
      BK_TILE_ZERO(0);
      BK_TILE_ZERO(1);
      BK_TILE_ZERO(2);
      BK_TILE_ZERO(3);
      const char* w = filter;
      for (int64_t r = 0; r < in.rows; ++r) {
        const int64_t above = in.few ? 0 : r - 1;
        const char* a = reinterpret_cast<const char*>(from.at(y[0] + above, x[0] - 1));
        const char* b = reinterpret_cast<const char*>(from.at(y[1] + above, x[1] - 1));
        for (int64_t s = 0; s < in.steps; ++s, a += 64, b += 64, w += 2 * kTile) {
          BK_TILE_LOAD(6, w, filter_step);
          BK_TILE_LOAD(4, a, pixel);
          BK_TILE_ADD(0, 4, 6);
          BK_TILE_LOAD(7, w + kTile, filter_step);
          BK_TILE_ADD(1, 4, 7);
          BK_TILE_LOAD(5, b, pixel);
          BK_TILE_ADD(2, 5, 6);
          BK_TILE_ADD(3, 5, 7);
        }
      }
      BK_TILE_STORE(0, sums[0], sum_step);
      BK_TILE_STORE(1, sums[0] + kLanes, sum_step);
      BK_TILE_STORE(2, sums[1], sum_step);
      BK_TILE_STORE(3, sums[1] + kLanes, sum_step);
      for (int i = 0; i < 1 + (second > item); ++i)
        to(sums[i], bias, n, y[i], x[i], lesser(blocks.pixels, blocks.width - x[i]));
    }
  }
}

#undef BK_TILE_ZERO
#undef BK_TILE_LOAD
#undef BK_TILE_STORE
#undef BK_TILE_ADD

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
