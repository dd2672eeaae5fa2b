// What normalize.cpp and normalize_kernel.h agree on.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace bk {

constexpr int64_t kSpan = 4096;  // elements that stay in L1; their statistics are combined in order, whatever the threads

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
template <class E>
using Real = std::conditional_t<std::is_same_v<E, double>, double, float>;

inline float as_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof(f));
  return f;
}
inline float widen(uint8_t v) { return v; }
inline float widen(float v) { return v; }
inline double widen(double v) { return v; }
inline float widen(BFloat16 v) { return as_float(static_cast<uint32_t>(v.bits) << 16); }
inline float widen(Half v) {
  const uint32_t sign = (v.bits & 0x8000u) << 16, rest = v.bits & 0x7fffu;
  const uint32_t exponent = rest >= 0x7c00u ? 224u << 23 : 112u << 23;  // of infinity and NaN, of the others
  const float small = static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f;  // of zero and subnormals
  uint32_t bits;
  std::memcpy(&bits, &small, sizeof(bits));
  return as_float((rest < 0x400u ? bits : (rest << 13) + exponent) | sign);
}

// What is normalised: the pixels themselves, or how they differ from those of the next frame.
template <class E>
struct Values {
  const E* x;
  Real<E> operator()(int64_t i) const { return widen(x[i]); }
};

template <class E>
struct Differences {
  const E *x, *next;
  Real<E> eps;
  Real<E> operator()(int64_t i) const {
    const Real<E> before = widen(x[i]), after = widen(next[i]);
    return quotient(after - before, after + before + eps);
  }

 private:
  // a / b. For what bytes give, in half a division's time: 1 / b is guessed from the exponent, within 5.1 %, then made good
  // to the third order of what is missing, t, and the quotient once more to the second: within 2e-8 and its own rounding.
  static Real<E> quotient(Real<E> a, Real<E> b) {
    if constexpr (!std::is_same_v<E, uint8_t>) {
      return a / b;
    } else {
      uint32_t bits;
      std::memcpy(&bits, &b, sizeof(bits));
      const float guess = as_float(0x7ef30000u - bits), t = 1 - b * guess;
      const float share = guess + guess * (t + t * t), q = a * share;
      return q + (a - q * b) * share;
    }
  }
};

// Of n values: their mean and their sum of squared deviations from it.
struct Moments {
  int64_t n;
  double mean, m2;
};

// Chan's formula.
inline void combine(Moments& all, const Moments& part) {
  const int64_t n = all.n + part.n;
  const double delta = part.mean - all.mean, share = static_cast<double>(part.n) / static_cast<double>(n);
  all.m2 += part.m2 + delta * delta * static_cast<double>(all.n) * share;
  all.mean += delta * share;
  all.n = n;
}

}  // namespace bk
