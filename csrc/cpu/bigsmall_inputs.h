// What bigsmall_inputs.cpp and bigsmall_inputs_kernel.h agree on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "intrinsics.h"

namespace bk {

constexpr int64_t kRows = 4;  // target rows at a time, so that a column's weight is loaded once for all of them
constexpr int64_t kPad = 48;  // floats behind a row or a picture, which the end of three vectors may read or write

constexpr int64_t kMostTaps = 255;  // of whole weights that come to as much

enum class Pixels { exact, unit, rounded };

// Four taps of 16 values: where their bytes begin, the places in them, and their weights.
struct alignas(64) Quad {
  uint8_t place[64], weight[64];
  int64_t start;
};

// One axis of an exact-area resize: target i is the sum of weight[k] * source[first[i] + k - begin[i]] over begin[i] <= k <
// begin[i + 1], where the weights are the parts of source pixels that lie in it. Of a whole number of pixels they are
// whole too, in units of the common fraction: sums of bytes are then exact.
struct Axis {
  int64_t size = 0, start = 0, extent = 0;  // targets; the first source pixel of all and how many there are
  double total = 0;                         // of a target's weights
  bool whole = false;                       // are the weights
  std::vector<int64_t> first, begin;        // first counts from start
  std::vector<float> weight;
  // The same for as many source pixels for each target, inside the extent: their weights are zero where they are not its own.
  int64_t taps = 0;
  std::vector<int64_t> window;
  std::vector<float> window_weight;
  // The same in whole numbers, where a target's weights come to at most 255: two pixels' weights as a pair of bytes, pair
  // after pair of a target; and as a pair of shorts, for each of four channels, target after target of a pair.
  bool fits_bytes = false;
  int64_t pairs = 0;
  std::vector<uint16_t> byte_pairs;
  std::vector<uint32_t> short_pairs;
  // The same for vectors of 16 values, three channels of a pixel after those of another, whose shorts lie within 64: where a
  // vector's begin, the places of each value's pair in them, and its weights, pair after pair.
  std::vector<int64_t> lane_start;
  std::vector<uint16_t> lane_places;
  std::vector<uint32_t> lane_pairs;
  // The same in bytes, of whole weights up to 255 (`most`): vector after vector, its taps by fours, whose bytes lie within 64,
  // or 128 (wide).
  int64_t quads_of_vector = 0;
  bool wide_quads = false;
  float most = 0;
  std::vector<Quad> quads;

  Axis(double from, double length, int64_t size, int64_t pixels) : size(size) {
    constexpr double kNothing = 1e-9;  // what rounding leaves of the neighbour of a whole edge
    start = static_cast<int64_t>(from);
    const double offset = from - static_cast<double>(start);
    whole = offset == 0 && length == std::floor(length);
    const double unit = whole ? static_cast<double>(size / std::gcd(static_cast<int64_t>(length), size)) : 1;
    total = length * unit / static_cast<double>(size);
    const auto edge = [&](int64_t i) { return offset + length * static_cast<double>(i) / static_cast<double>(size); };
    first.reserve(size);
    begin.reserve(size + 1);
    weight.reserve(size * static_cast<int64_t>(length / static_cast<double>(size) + 3));
    for (int64_t i = 0; i < size; ++i) {
      const double left = edge(i), right = edge(i + 1);
      int64_t p = std::min(static_cast<int64_t>(left + kNothing), pixels - 1 - start);
      first.push_back(p);
      begin.push_back(static_cast<int64_t>(weight.size()));
      do {
        const double low = static_cast<double>(p);
        const double part = std::max(0.0, std::min(right, low + 1) - std::max(left, low)) * unit;
        weight.push_back(whole ? static_cast<float>(static_cast<int64_t>(part + 0.5)) : static_cast<float>(part));
        ++p;
      } while (static_cast<double>(p) < right - kNothing && start + p < pixels);
      extent = p;
    }
    begin.push_back(static_cast<int64_t>(weight.size()));
    for (int64_t i = 0; i < size; ++i) taps = std::max(taps, begin[i + 1] - begin[i]);
    window_weight.resize(size * taps);
    for (int64_t i = 0; i < size; ++i) {
      window.push_back(std::min(first[i], extent - taps));
      std::copy(weight.begin() + begin[i], weight.begin() + begin[i + 1],
                window_weight.begin() + i * taps + first[i] - window[i]);
    }
    window.resize(padded(), window.back());
    fits_bytes = whole && total <= kMostTaps;
  }

  // Targets in whole vectors of pixels.
  int64_t padded() const { return (size + 3) / 4 * 4; }

  // Fills in the pairs, of weights that fit bytes.
  void pair() {
    pairs = (taps + 1) / 2;
    byte_pairs.resize(size * pairs);
    short_pairs.resize(pairs * padded() * 4);
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t k = 0; k < taps; ++k) {
        const uint32_t w = static_cast<uint32_t>(window_weight[i * taps + k]);
        byte_pairs[i * pairs + k / 2] = static_cast<uint16_t>(byte_pairs[i * pairs + k / 2] | w << 8 * (k % 2));
        for (int64_t c = 0; c < 4; ++c) short_pairs[(k / 2 * padded() + i) * 4 + c] |= w << 16 * (k % 2);
      }
    }
  }

  // Fills in the lanes, of columns that have pairs; leaves them empty where a vector's shorts lie further apart.
  void spread() {
    constexpr int64_t kLanes = 16, kPlaces = 64;
    const int64_t values = 3 * size, vectors = (values + kLanes - 1) / kLanes;
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t start = 3 * window[v * kLanes / 3], last = std::min(v * kLanes + kLanes, values) - 1;
      if (3 * window[last / 3] + last % 3 + 3 - start >= kPlaces) return lane_start.clear();
      lane_start.push_back(start);
      for (int64_t j = v * kLanes; j < v * kLanes + kLanes; ++j) {
        const int64_t place = 3 * window[std::min(j, last) / 3] + std::min(j, last) % 3 - start;
        lane_places.push_back(static_cast<uint16_t>(place));
        lane_places.push_back(static_cast<uint16_t>(place + 3));
      }
      for (int64_t k = 0; k < pairs; ++k) {
        for (int64_t j = v * kLanes; j < v * kLanes + kLanes; ++j)
          lane_pairs.push_back(short_pairs[(k * padded() + std::min(j, last) / 3) * 4]);
      }
    }
  }

  // Fills in the quads; leaves them empty where a vector's bytes lie further apart, or a weight is no byte.
  void group() {
    constexpr int64_t kLanes = 16, kPlaces = 64;
    const int64_t values = 3 * size, bytes = 3 * extent, of_vector = (taps + 3) / 4;
    most = *std::max_element(weight.begin(), weight.end());
    if (!whole || most > 255) return;
    const auto first_of = [&](int64_t value, int64_t tap) { return 3 * (window[value / 3] + tap) + value % 3; };
    int64_t span = 0;
    for (int64_t v = 0; v < values; v += kLanes) {
      const int64_t last = std::min(v + kLanes, values) - 1;
      span = std::max(span, first_of(last, std::min<int64_t>(taps, 4) - 1) + 1 - first_of(v / 3 * 3, 0));
    }
    const int64_t reach = span > kPlaces ? 2 * kPlaces : kPlaces;
    if (span > reach || bytes < reach) return;
    wide_quads = span > kPlaces;
    quads_of_vector = of_vector;
    quads.reserve((values + kLanes - 1) / kLanes * of_vector);
    for (int64_t v = 0; v < values; v += kLanes) {
      for (int64_t q = 0; q < of_vector; ++q) {
        Quad& quad = quads.emplace_back();
        quad.start = std::min(first_of(v / 3 * 3, 4 * q), bytes - reach);
        for (int64_t j = 0; j < kLanes; ++j) {
          const int64_t value = std::min(v + j, values - 1);
          for (int64_t k = 4 * q; k < std::min(4 * q + 4, taps); ++k) {
            quad.place[4 * j + k % 4] = static_cast<uint8_t>(first_of(value, k) - quad.start);
            quad.weight[4 * j + k % 4] = static_cast<uint8_t>(window_weight[value / 3 * taps + k]);
          }
        }
      }
    }
  }
};

// A box of a frame and the axes of its targets: rows of interleaved bytes, x's first pixel is the axes' first.
struct Picture {
  const uint8_t *x, *next;  // next: where the one after it lies, or the same
  int64_t stride;
  const Axis &rows, &columns;
  Pixels pixels;
};

// What becomes of a frame's resized pixels.
struct Use {
  float* x;           // (size, size, 3): the earlier frame's pixels, as its frame kept them
  bool keep;          // these take their place
  double* of_pixels;  // their sum and the sum of their squares, where they are kept
  float* big;         // (3, size, size), or null
  const Axis* down;   // of the differences' averages, or null: no differences
  float eps;          // of a difference's denominator
  double* of_differences;
  float* small;  // (3, down->size, down->size)
};

// Floats that a frame's work needs beside its pixels.
inline int64_t scratch(const Axis& columns) {
  return kRows * (3 * columns.extent + kPad) + (kRows + 2) * (3 * columns.padded() + kPad);
}

}  // namespace bk
