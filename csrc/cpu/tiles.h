// Filters of 3x3 convolutions in bfloat16, as the tiles that AMX multiplies: 16 pairs of values by 16 outputs. The same for any
// instruction set.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "tensor.h"

namespace bk {

inline bool is_3x3(const Tensor& w) { return w.dim() == 4 && w.size(2) == 3 && w.size(3) == 3; }

// A tile of pixels holds 32 values of each. Of a few channels of an image, a pixel has with it those above and below it, in
// words of two values, and three pixels beside each other fill a tile.
constexpr int64_t words_of_few(int64_t channels) { return (3 * channels + 1) / 2; }
constexpr bool is_few(int64_t channels) { return 3 * words_of_few(channels) <= 16; }
constexpr int64_t tiles_of(int64_t channels, bool few) { return few ? 1 : 9 * ((channels + 31) / 32); }

// Floats that a packed filter takes, two values in a float's place.
inline int64_t tiles_size(const Tensor& w, bool few) { return round_up(w.size(0), 32) * 16 * tiles_of(w.size(1), few); }

// For each 32 outputs, for each tile of the values that they see, two tiles. The values are a neighbourhood's, or 32 channels'
// at one place; zeros where there is nothing.
inline void pack_as_tiles(const Tensor& w, bool few, float* packed) {
  const int64_t out = w.size(0), in = w.size(1), tiles = tiles_of(in, few), chunks = (in + 31) / 32;
  std::vector<int64_t> offset(in * 9);  // of an output's weights in the tiles
  for (int64_t i = 0; i < in * 9; ++i) {
    const int64_t channel = i / 9, place = i % 9;
    const int64_t tile = few ? 0 : place * chunks + channel / 32;
    const int64_t value = few ? place % 3 * 2 * words_of_few(in) + place / 3 * in + channel : channel % 32;
    offset[i] = tile * 1024 + value / 2 * 32 + value % 2;
  }
  const float* weight = w.const_data_ptr<float>();
  torch::stable::parallel_for(0, round_up(out, 32) / 32, std::max<int64_t>(1, 16 / tiles), [&](int64_t begin, int64_t end) {
    uint16_t* const to = reinterpret_cast<uint16_t*>(packed);
    std::fill(to + begin * tiles * 1024, to + end * tiles * 1024, uint16_t{0});
    for (int64_t o = begin * 32; o < std::min(end * 32, out); ++o) {
      uint16_t* const at = to + o / 32 * tiles * 1024 + o % 32 / 16 * 512 + o % 16 * 2;
      for (int64_t i = 0; i < in * 9; ++i) at[offset[i]] = c10::BFloat16(weight[o * in * 9 + i]).x;
    }
  });
}

}  // namespace bk
