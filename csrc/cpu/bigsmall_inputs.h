// What bigsmall_inputs.cpp and bigsmall_inputs_kernel.h agree on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

namespace bk {

constexpr int64_t kRows = 4;  // target rows at a time, so that a column's weight is loaded once for all of them

enum class Pixels { exact, unit, rounded };

// One axis of an exact-area resize: target i is the sum of weight[k] * source[first[i] + k - begin[i]] over begin[i] <= k <
// begin[i + 1], where the weights are the parts of source pixels that lie in it. Of a whole number of pixels they are
// whole too, in units of the common fraction: sums of bytes are then exact.
struct Axis {
  int64_t size = 0, start = 0, extent = 0;  // targets; the first source pixel of all and how many there are
  double total = 0;                         // of a target's weights
  bool fits16 = false;                      // weighted sums of bytes are whole and below 2^16
  std::vector<int64_t> first, begin;        // first counts from start
  std::vector<float> weight;
  // The same for as many source pixels for each target, inside the extent: their weights are zero where they are not its own.
  int64_t taps = 0;
  std::vector<int64_t> window;
  std::vector<float> window_weight;

  Axis(double from, double length, int64_t size, int64_t pixels) : size(size) {
    constexpr double kNothing = 1e-9;  // what rounding leaves of the neighbour of a whole edge
    start = static_cast<int64_t>(from);
    const double offset = from - static_cast<double>(start);
    const bool whole = offset == 0 && length == std::floor(length);
    const double unit = whole ? static_cast<double>(size / std::gcd(static_cast<int64_t>(length), size)) : 1;
    total = length * unit / static_cast<double>(size);
    fits16 = whole && 255 * total < 65535.5;
    const auto edge = [&](int64_t i) { return offset + length * static_cast<double>(i) / static_cast<double>(size); };
    for (int64_t i = 0; i < size; ++i) {
      const double left = edge(i), right = edge(i + 1);
      int64_t p = std::min(static_cast<int64_t>(left + kNothing), pixels - 1 - start);
      first.push_back(p);
      begin.push_back(static_cast<int64_t>(weight.size()));
      do {
        const double low = static_cast<double>(p);
        weight.push_back(static_cast<float>(std::max(0.0, std::min(right, low + 1) - std::max(left, low)) * unit));
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
  }
};

}  // namespace bk
