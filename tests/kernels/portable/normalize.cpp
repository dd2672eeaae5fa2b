// Both normalisers of every kind of value, over spans of any lengths.
#include "check.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/normalize.h"

namespace bk::portable {
#include "cpu/vec.h"
#include "cpu/normalize_kernel.h"
}  // namespace bk::portable

namespace {

// The kernels over spans of any lengths against the truth's statistics; `truth` are the values that are normalised.
template <class Source>
double normalized_error(const Source& source, const Doubles& truth, bool centred) {
  const int64_t n = static_cast<int64_t>(truth.size());
  std::vector<int64_t> cuts{0};
  while (cuts.back() < n) cuts.push_back(std::min(n, cuts.back() + 1 + below(bk::kSpan)));
  bk::Moments all{0, 0, 0};
  for (size_t i = 1; i < cuts.size(); ++i)
    bk::combine(all, bk::portable::moments(source(cuts[i - 1]), cuts[i] - cuts[i - 1]));
  Memory y(n);
  const double centre = centred ? all.mean : 0, scale = 1 / std::sqrt(all.m2 / static_cast<double>(all.n));
  for (size_t i = 1; i < cuts.size(); ++i)
    bk::portable::normalize(source(cuts[i - 1]), cuts[i] - cuts[i - 1], centre, scale, y.data() + cuts[i - 1]);
  double mean = 0, square = 0;
  for (const double v : truth) mean += v / static_cast<double>(n);
  for (const double v : truth) square += (v - mean) * (v - mean) / static_cast<double>(n);
  Error error;
  for (int64_t i = 0; i < n; ++i) error(y[i], (truth[i] - (centred ? mean : 0)) / std::sqrt(square));
  return error.value();
}

template <class E>
double both_errors(const std::vector<E>& x, const Doubles& plain) {
  const int64_t frame = static_cast<int64_t>(x.size()) / 3;
  Doubles differences(2 * frame);
  for (int64_t i = 0; i < 2 * frame; ++i)
    differences[i] = (plain[i + frame] - plain[i]) / (plain[i + frame] + plain[i] + double{1e-7f});
  return std::max(normalized_error([&](int64_t k) { return bk::Values<E>{x.data() + k}; }, plain, true),
                  normalized_error([&](int64_t k) { return bk::Differences<E>{x.data() + k, x.data() + k + frame, 1e-7f}; },
                                   differences, false));
}

}  // namespace

void check_normalisers() {
  constexpr int64_t n = 3 * 7001;
  std::vector<uint8_t> bytes(n);
  std::vector<float> floats(n);
  std::vector<bk::Half> halves(n);
  std::vector<bk::BFloat16> brains(n);
  Doubles of_bytes(n), of_floats(n), of_halves(n), of_brains(n);
  for (int64_t i = 0; i < n; ++i) {
    of_bytes[i] = bytes[i] = static_cast<uint8_t>(1 + below(255));
    of_floats[i] = floats[i] = static_cast<float>(100 + 10 * normal());
    halves[i].bits = static_cast<uint16_t>(below(0x5c00));  // every kind of exponent, below 256
    const int exponent = halves[i].bits >> 10, mantissa = halves[i].bits & 0x3ff;
    of_halves[i] = exponent > 0 ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    brains[i].bits = static_cast<uint16_t>(0x3f80 + below(0x400));  // 1 to 256
    of_brains[i] = std::ldexp(128 + (brains[i].bits & 0x7f), (brains[i].bits >> 7) - 134);
  }
  report("normalisers, bytes", both_errors(bytes, of_bytes));
  report("normalisers, float32", both_errors(floats, of_floats));
  report("normalisers, float16", both_errors(halves, of_halves));
  report("normalisers, bfloat16", both_errors(brains, of_brains));

  bk::portable::rescale(floats.data(), n, 90, 0.5f);
  Error error;
  for (int64_t i = 0; i < n; ++i) error(floats[i], (of_floats[i] - 90) / 2);
  report("rescaled", error.value());
}
