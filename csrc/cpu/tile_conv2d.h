// 3x3 convolutions in bfloat16 on processors that multiply tiles of it (AMX), of rows of pixels to sums: every product of a tile
// of up to 16 pixels by 32 values with one of 32 values by 16 outputs is an instruction. Included inside a namespace of its own,
// after vec.h.
//
// A tile of few channels reads a little beyond a neighbourhood, times zero: a NaN or infinity there reaches its sums.

#include "rings.h"

namespace {

constexpr int64_t kValues = 32;  // values of a tile's row, and outputs that are computed together
constexpr int64_t kWords = kValues / 2;  // of 32 bits
constexpr int64_t kTile = 1024;    // bytes
constexpr int64_t kTileRows = 16;  // at most

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

}  // namespace
