// Tiles in the domain of Winograd's algorithms, and their matrix products over the channels. Included inside the namespace of
// each instruction set, after vec.h.

namespace {

constexpr int kGroup = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 5;  // tiles times two vectors of outputs fill the registers

// `count` tiles in groups of up to kGroup, as even as possible.
template <int kMost>
struct Groups {
  int64_t groups, first[kMost + 1];

  explicit Groups(int64_t count) : groups(ceil_div(count, kGroup)) {
    for (int64_t g = 0; g <= groups; ++g) first[g] = count * g / groups;
  }
  int64_t size(int64_t group) const { return first[group + 1] - first[group]; }
};

// Transformed tiles: [group][vectors of channels][kParts][kGroup][kLanes]. The parts of a tile lie near each other (few
// pages) and an odd number of cache lines apart (in different sets).
template <int kParts>
struct TransformedTiles {
  static constexpr int64_t kPart = (kGroup | 1) * kLanes, kVector = kParts * kPart;
  float* data;
  int64_t vectors;

  float* at(int64_t group, int64_t vector) const { return data + (group * vectors + vector) * kVector; }
};

// T tiles times N vectors of output channels; `u` holds the filter of each vector.
template <int T, int N, int64_t kVector>
void product(const float* v, const float* const* u, float* m, int64_t channels) {
  V sum[T][N];
  const float* w[N];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
    w[n] = u[n];
#pragma GCC unroll 16  // else GCC 12 also writes all of the zeros to memory
    for (int t = 0; t < T; ++t) sum[t][n] = V{};
  }
  for (; channels > 0; channels -= kLanes, v += kVector) {
    const int64_t stop = lesser(channels, kLanes);
    for (int64_t k = 0; k < stop; ++k) {
      V f[N];
      for (int n = 0; n < N; ++n) {
        f[n] = load(w[n]);
        w[n] += 16;
      }
      for (int t = 0; t < T; ++t) {
        const V s = splat(v[t * kLanes + k]);
        for (int n = 0; n < N; ++n) sum[t][n] += s * f[n];
      }
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int t = 0; t < T; ++t) store(m + n * kVector + t * kLanes, sum[t][n]);
  }
}

using Product = void (*)(const float*, const float* const*, float*, int64_t);
template <int N, int64_t kVector, int T = kGroup>
Product product_of(int64_t tiles) {
  if constexpr (T > 1) {
    if (tiles < T) return product_of<N, kVector, T - 1>(tiles);
  }
  return &product<T, N, kVector>;
}

// The products of all parts. The filters, [part][block of 16 outputs][in][16], begin at `filters` with a part's first block
// that is wanted and have `blocks` in all.
template <int kMost, int kParts>
void multiply(const Groups<kMost>& groups, const TransformedTiles<kParts>& v, const float* filters, int64_t blocks,
              int64_t in, const TransformedTiles<kParts>& m) {
  constexpr int64_t kPart = TransformedTiles<kParts>::kPart, kVector = TransformedTiles<kParts>::kVector;
  Product pairs[kMost], singles[kMost];
  for (int64_t g = 0; g < groups.groups; ++g) {
    pairs[g] = product_of<2, kVector>(groups.size(g));
    singles[g] = product_of<1, kVector>(groups.size(g));
  }
  for (int64_t p = 0; p < kParts; ++p, filters += blocks * in * 16) {
    for (int64_t n = 0; n < m.vectors; n += 2) {
      const bool pair = n + 1 < m.vectors;
      const float* u[2];
      for (int64_t i = 0; i < 1 + pair; ++i) {
        const int64_t channel = (n + i) * kLanes;
        u[i] = filters + channel / 16 * in * 16 + channel % 16;
      }
      for (int64_t g = 0; g < groups.groups; ++g)
        (pair ? pairs : singles)[g](v.at(g, 0) + p * kPart, u, m.at(g, n) + p * kPart, in);
    }
  }
}

}  // namespace
