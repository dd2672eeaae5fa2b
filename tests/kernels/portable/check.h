// What the checks of the kernels without torch have in common: data, memory full of NaN, errors and their report.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#ifndef BK_LANES
#define BK_LANES 4  // the portable path's; others check what the wider instruction sets compute, without their instructions
#endif

using Doubles = std::vector<double>;
constexpr double kBound = 1e-5;

inline std::mt19937 generator(0);
inline double normal() { return std::normal_distribution<double>()(generator); }
inline int64_t below(int64_t n) { return static_cast<int64_t>(generator() % static_cast<uint32_t>(n)); }
inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

inline bool failed = false;
inline void report(const char* kernel, double error) {
  std::printf("%-24s %.1e\n", kernel, error);
  if (!(error <= kBound)) failed = true;
}

// NaN inside until written, and around, where nothing may be written.
class Memory {
 public:
  explicit Memory(int64_t n) : values_(n + 2 * kMargin, std::numeric_limits<float>::quiet_NaN()) {}
  ~Memory() {
    for (int64_t i = 0; i < kMargin; ++i) {
      if (!std::isnan(values_[i]) || !std::isnan(values_[values_.size() - 1 - i])) {
        std::printf("written outside of a buffer\n");
        failed = true;
      }
    }
  }
  Memory(const Memory&) = delete;
  float* data() { return values_.data() + kMargin; }
  int64_t size() const { return static_cast<int64_t>(values_.size()) - 2 * kMargin; }
  float& operator[](int64_t i) { return data()[i]; }
  void fill_normal() {
    for (int64_t i = 0; i < size(); ++i) data()[i] = static_cast<float>(normal());
  }

 private:
  static constexpr int64_t kMargin = 64;
  std::vector<float> values_;
};

// The largest difference over the largest truth; NaN anywhere is infinitely wrong.
class Error {
 public:
  void operator()(double y, double truth) {
    const double difference = std::abs(y - truth);
    if (!(difference <= largest_)) largest_ = std::isnan(difference) ? INFINITY : difference;
    scale_ = std::max(scale_, std::abs(truth));
  }
  double value() const { return scale_ > 0 ? largest_ / scale_ : largest_; }

 private:
  double largest_ = 0, scale_ = 0;
};

inline Doubles random_filter(int64_t out, int64_t in, int64_t taps) {
  Doubles w(out * in * taps);
  for (double& v : w) v = static_cast<float>(normal() / std::sqrt(static_cast<double>(in * taps)));
  return w;
}

// (out, in, taps) -> (out / 16, taps, in, 16), zero beyond `out`.
inline void pack_direct(const Doubles& w, int64_t out, int64_t in, int64_t taps, float* packed) {
  for (int64_t i = 0; i < round_up(out, 16) * in * taps; ++i) {
    const int64_t o = i / (16 * in * taps) * 16 + i % 16, t = i / (16 * in) % taps, c = i / 16 % in;
    packed[i] = o < out ? static_cast<float>(w[(o * in + c) * taps + t]) : 0.0f;
  }
}

void check_blocks();
void check_convolutions();
void check_normalisers();
void check_inputs();
