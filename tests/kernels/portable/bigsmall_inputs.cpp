// Boxes resized, their sums and differences.
#include "check.h"

#include <array>
#include <utility>

#include "cpu/bigsmall_inputs.h"

namespace bk::portable {
#include "cpu/vec.h"
#include "cpu/bigsmall_inputs_kernel.h"
}  // namespace bk::portable

namespace {

// How much of pixel p lies in target i of n over [from, from + length).
double overlap(double from, double length, int64_t n, int64_t i, int64_t p) {
  const double left = from + length * static_cast<double>(i) / static_cast<double>(n);
  const double right = from + length * static_cast<double>(i + 1) / static_cast<double>(n);
  return std::max(0.0, std::min(right, static_cast<double>(p + 1)) - std::max(left, static_cast<double>(p)));
}

// A box of a picture of bytes, resized in doubles: (size, size, 3).
Doubles resized(const std::vector<uint8_t>& frame, int64_t height, int64_t width, const std::array<double, 4>& box,
                int64_t size) {
  const int64_t n = 3 * size * size;
  Doubles y(n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = i / (3 * size), column = i / 3 % size, c = i % 3;
    for (int64_t r = 0; r < height; ++r) {
      const double part = overlap(box[1], box[3], size, row, r);
      for (int64_t q = 0; q < width && part > 0; ++q)
        y[i] += part * overlap(box[0], box[2], size, column, q) * frame[(r * width + q) * 3 + c];
    }
    y[i] *= static_cast<double>(size * size) / (box[2] * box[3]);
  }
  return y;
}

// Of a frame's pixels, of the averages of the next one's differences to them, and of the sums of both.
double inputs_error(int64_t height, int64_t width, const std::array<double, 4>& box, int64_t size, bk::Pixels pixels) {
  namespace k = bk::portable;
  const int64_t n = 3 * size * size, small = std::max<int64_t>(1, size * 2 / 5);
  std::vector<uint8_t> frames[2];
  const bk::Axis rows(box[1], box[3], size, height), columns(box[0], box[2], size, width);
  const bk::Axis down(0, static_cast<double>(size), small, size);
  Memory scratch(bk::scratch(columns)), x(n + bk::kPad), big(n), next(n), averages(3 * small * small);
  double of_pixels[2], of_next[2], of_differences[2];
  for (std::vector<uint8_t>& frame : frames) {
    frame.resize(height * width * 3);
    for (uint8_t& v : frame) v = static_cast<uint8_t>(below(256));
  }
  const auto picture = [&](int t) {
    const auto at = [&](int frame) { return frames[frame].data() + (rows.start * width + columns.start) * 3; };
    return bk::Picture{at(t), at(1), 3 * width, rows, columns, pixels};
  };
  k::frame(picture(0), {x.data(), true, of_pixels, big.data(), nullptr, 1e-7f, nullptr, nullptr}, scratch.data());
  k::frame(picture(1), {x.data(), true, of_next, next.data(), &down, 1e-7f, of_differences, averages.data()},
           scratch.data());

  Error error, of_sums, of_averages;
  Doubles kept[2];
  for (int t = 0; t < 2; ++t) {
    Memory& ours = t ? next : big;
    kept[t] = resized(frames[t], height, width, box, size);
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; ++i) {
      double& truth = kept[t][i];
      const float pixel = ours[i % 3 * size * size + i / 3];
      if (pixels == bk::Pixels::unit) truth = std::max(truth, 1.0) / 255;
      if (pixels == bk::Pixels::rounded) {
        const bool either = std::abs(std::abs(truth - std::floor(truth)) - 0.5) < 1e-4;
        truth = either && std::abs(pixel - truth) < 0.5001 ? std::nearbyint(pixel) : std::nearbyint(truth);
      }
      error(pixel, truth);
      sum += truth;
      square += truth * truth;
    }
    of_sums((t ? of_next : of_pixels)[0], sum);
    of_sums((t ? of_next : of_pixels)[1], square);
  }
  double square = 0;
  Doubles truth(averages.size());
  for (int64_t i = 0; i < n; ++i) {
    const double before = kept[0][i], after = kept[1][i], d = (after - before) / (after + before + 1e-7);
    const int64_t row = i / (3 * size), column = i / 3 % size, c = i % 3;
    square += d * d;
    for (int64_t r = 0; r < small; ++r) {
      for (int64_t q = 0; q < small; ++q) {
        truth[(c * small + r) * small + q] += d * overlap(0, static_cast<double>(size), small, r, row) *
                                              overlap(0, static_cast<double>(size), small, q, column) *
                                              static_cast<double>(small * small) / static_cast<double>(size * size);
      }
    }
  }
  for (int64_t i = 0; i < averages.size(); ++i) of_averages(averages[i], truth[i]);
  of_sums(of_differences[1], square);
  return std::max({error.value(), of_sums.value(), of_averages.value()});
}

}  // namespace

void check_inputs() {
  double worst = 0;
  for (const bk::Pixels pixels : {bk::Pixels::exact, bk::Pixels::unit, bk::Pixels::rounded}) {
    worst = std::max({worst, inputs_error(37, 41, {0, 0, 41, 37}, 9, pixels),         // a prime of pixels
                      inputs_error(60, 50, {3, 7, 40, 40}, 20, pixels),               // a whole number of pixels a target
                      inputs_error(45, 33, {1.25, 0.6, 30.5, 41.3}, 7, pixels),       // edges anywhere
                      inputs_error(20, 25, {2.5, 3, 9.75, 11}, 31, pixels),           // enlarged
                      inputs_error(200, 64, {0, 0, 64, 200}, 3, pixels)});            // sums beyond 16 bits
  }
  report("bigsmall_inputs", worst);
}
