// wtsm_conv2d and stacks of it in bfloat16 on processors that multiply tiles of it (AMX): 3x3 layers of small images, padded to
// their size, whose channels are few in the first layer or in none. Included inside a namespace of its own, after vec.h.
//
// A thread takes a clip through all layers. A layer's outputs are rounded to bfloat16, as eager rounds them, and put where the
// next one reads them: the shift is an address.

#include "activation.h"
#include "tile_conv2d.h"

namespace {

BK_INLINE V activated(V v, Activation a) { return a == Activation::relu ? positive(v) : activate(v, a); }

// A clip's images one below the other, in zeros.
struct Images {
  Rows rows;
  int64_t height;

  int64_t row(int64_t frame, int64_t y) const { return frame * (height + 2) + 1 + y; }
};

// A pixel's 32 sums -> its outputs.
BK_INLINE __m512i outputs(const float* sums, const V (&bias)[2], Activation a) {
  const V low = activated(load(sums) + bias[0], a), high = activated(load(sums + kLanes) + bias[1], a);
  return reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
}

// Where a layer but the last puts a frame's outputs: into the next one's images, as its shift has them.
struct ToImages {
  Images images;
  Shift shift;
  Activation activation;
  int64_t frame;

  // The frame that a range of channels goes to, or -1.
  int64_t target(int part) const {
    for (int64_t t = 0; t < shift.n; ++t) {
      if (shift.source(t, part) == frame) return t;
    }
    return -1;
  }

  void operator()(const float* sums, const V (&bias)[2], int64_t channel, int64_t y, int64_t x, int64_t pixels) const {
    uint16_t* to[3];
    __mmask32 mask[3];
    for (int part = 0; part < 3; ++part) {
      const int64_t begin = greater(shift.begin(part) - channel, 0), end = lesser(shift.end(part) - channel, kValues);
      const int64_t t = begin < end ? target(part) : -1;
      mask[part] = t < 0 ? 0 : static_cast<__mmask32>(~uint32_t{0} >> (kValues - (end - begin)) << begin);
      to[part] = halves(images.rows.at(images.row(t < 0 ? 0 : t, y - images.row(frame, 0)), x)) + channel;
    }
    for (int64_t p = 0; p < pixels; ++p, sums += kValues) {
      const __m512i all = outputs(sums, bias, activation);
      for (int part = 0; part < 3; ++part) {
        _mm512_mask_storeu_epi16(to[part], mask[part], all);
        to[part] += 2 * images.rows.pixel;
      }
    }
  }
};

// Where the last one puts them: pixel after pixel.
struct ToPixels {
  float* data;
  int64_t words, width, first;
  Activation activation;

  void operator()(const float* sums, const V (&bias)[2], int64_t channel, int64_t y, int64_t x, int64_t pixels) const {
    float* to = data + ((y - first) * width + x) * words + channel / 2;
    for (int64_t p = 0; p < pixels; ++p, sums += kValues, to += words) {
      const __m512i all = outputs(sums, bias, activation);
      __builtin_memcpy(to, &all, sizeof(all));
    }
  }
};

// A clip of the tensor that is read.
struct Source {
  const uint16_t* data;
  int64_t channels, height, width, sn, sc, sh, sw;
};

// Shifted, into the first layer's images: of few channels a pixel takes those above and below it.
void stage(const Source& x, const Shift& shift, const Inputs& in, const Images& to) {
  for (int64_t t = 0; t < shift.n; ++t) {
    for (int part = 0; part < 3; ++part) {
      const int64_t from = shift.source(t, part);
      if (from < 0) continue;
      for (int64_t c = shift.begin(part); c < shift.end(part); ++c) {
        const uint16_t* const plane = x.data + from * x.sn + c * x.sc;
        for (int64_t y = 0; y < x.height; ++y) {
          const uint16_t* const row = plane + y * x.sh;
          const auto put = [&](int64_t at, int64_t value) {
            uint16_t* pixel = halves(to.rows.at(to.row(t, at), 0)) + value;
            for (int64_t i = 0; i < x.width; ++i, pixel += 2 * in.words) *pixel = row[i * x.sw];
          };
          if (!in.few) {
            put(y, c);
            continue;
          }
          for (int64_t d = greater(-1, y + 1 - x.height); d <= lesser(1, y); ++d) put(y - d, (d + 1) * x.channels + c);
        }
      }
    }
  }
}

// A frame's pixels, `words` each, to its planes.
void to_planes(const float* pixels, int64_t words, int64_t channels, int64_t count, uint16_t* y) {
  if (count < kLanes) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < channels; ++c) y[c * count + i] = reinterpret_cast<const uint16_t*>(pixels + i * words)[c];
    }
    return;
  }
  for (int64_t w = 0; 2 * w < channels; w += kLanes) {
    for (int64_t next = 0; next < count; next += kLanes) {
      const int64_t at = lesser(next, count - kLanes);
      V v[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) v[i] = load(pixels + (at + i) * words + w);
      transpose(v);
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t c = 2 * (w + i);
        const __m512i both = reinterpret_cast<__m512i>(v[i]);
        const auto put = [&](int64_t channel, __m512i low) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + channel * count + at), _mm512_cvtepi32_epi16(low));
        };
        if (c < channels) put(c, both);
        if (c + 1 < channels) put(c + 1, _mm512_srli_epi32(both, 16));
      }
    }
  }
}

struct Workspace {
  Blocks blocks;
  std::vector<Images> images;  // each layer's
  float* out;                  // the last one's outputs, pixel after pixel
  int64_t size;

  Workspace(const HalfTrunk& a, float* base) : blocks(a.width) {
    Arena arena{base};
    const int64_t rows = a.n * (a.height + 2), pixels = blocks.count * blocks.pixels + 2;  // and what the last block reaches over
    for (int64_t l = 0; l < a.depth; ++l) {
      const Inputs in(a.layers[l].in, a.layers[l].few);
      images.push_back({arena.ring(rows, pixels + (in.few ? kWords : 0), in.words, 1), a.height});
    }
    out = arena.take(a.n * a.height * a.width * words_of_outputs(a));
    size = arena.size;
  }
  static int64_t words_of_outputs(const HalfTrunk& a) { return ceil_div(a.layers[a.depth - 1].out, kValues) * kWords; }
};

void clip(const HalfTrunk& a, const Workspace& w, int64_t first) {
  const auto shift = [&](int64_t channels) { return Shift{a.n, channels, channels / a.fold_div, a.wrap, 1}; };
  const int64_t in = a.layers[0].in, out = a.layers[a.depth - 1].out, words = Workspace::words_of_outputs(a);
  stage({a.x + first * a.x_stride[0], in, a.height, a.width, a.x_stride[0], a.x_stride[1], a.x_stride[2], a.x_stride[3]},
        shift(in), Inputs(in, a.layers[0].few), w.images[0]);
  const int64_t count = a.height * a.width;
  for (int64_t l = 0; l < a.depth; ++l) {
    const HalfLayer& layer = a.layers[l];
    const Inputs inputs(layer.in, layer.few);
    const Images& from = w.images[l];
    for (int64_t t = 0; t < a.n; ++t) {
      const auto rows_to = [&](const auto& to) {
        convolve({layer.filter, layer.bias, layer.out}, inputs, from.rows, w.blocks, from.row(t, 0), from.row(t, a.height), to);
      };
      if (l + 1 < a.depth)
        rows_to(ToImages{w.images[l + 1], shift(layer.out), a.activation, t});
      else
        rows_to(ToPixels{w.out + t * count * words, words, a.width, from.row(t, 0), a.activation});
    }
  }
  for (int64_t t = 0; t < a.n; ++t) {
    const float* pixels = w.out + t * count * words;
    uint16_t* y = a.y + (first + t) * count * out;
    if (!a.nhwc) {
      to_planes(pixels, words, out, count, y);
    } else {
      for (int64_t i = 0; i < count; ++i) __builtin_memcpy(y + i * out, pixels + i * words, out * sizeof(uint16_t));
    }
  }
}

}  // namespace

// Floats of workspace a thread needs.
int64_t trunk_workspace(const HalfTrunk& a) { return Workspace(a, nullptr).size; }

// Clips [begin, end).
void trunk(const HalfTrunk& a, float* space, int64_t begin, int64_t end) {
  const Workspace w(a, space);
  std::fill_n(space, w.size, 0.f);
  const TilesInUse tiles(w.blocks.pixels);
  for (int64_t c = begin; c < end; ++c) clip(a, w, c * a.n);
}
