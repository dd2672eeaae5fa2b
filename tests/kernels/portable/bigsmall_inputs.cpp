// Boxes resized, their sums and differences.
#include "check.h"

#include <array>
#include <cstring>
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

// Of a box in a picture of bytes; `sums` and `differences` as the pass over a video has them, then.
double inputs_error(int64_t height, int64_t width, const std::array<double, 4>& box, int64_t size, bk::Pixels pixels) {
  namespace k = bk::portable;
  std::vector<uint8_t> frame(height * width * 3);
  for (uint8_t& v : frame) v = static_cast<uint8_t>(below(256));
  const bk::Axis rows(box[1], box[3], size, height), columns(box[0], box[2], size, width);
  Memory mixed(bk::kRows * (3 * columns.extent + 4)), y(3 * size * size), planes(3 * size * size);
  const float area = static_cast<float>(rows.total * columns.total * (pixels == bk::Pixels::unit ? 255 : 1));
  const uint8_t* x = frame.data() + (rows.start * width + columns.start) * 3;
  if (rows.fits16)
    k::resize<uint16_t>(x, 3 * width, rows, columns, area, pixels, mixed.data(), y.data());
  else
    k::resize<float>(x, 3 * width, rows, columns, area, pixels, mixed.data(), y.data());
  k::to_planes(y.data(), size * size, planes.data());
  Error error, of_sums, of_differences;
  for (int64_t i = 0; i < 3 * size * size; ++i) {
    const int64_t c = i / (size * size), row = i / size % size, column = i % size;
    double truth = 0;
    for (int64_t r = 0; r < height; ++r) {
      const double part = overlap(box[1], box[3], size, row, r);
      for (int64_t q = 0; q < width && part > 0; ++q)
        truth += part * overlap(box[0], box[2], size, column, q) * frame[(r * width + q) * 3 + c];
    }
    truth *= static_cast<double>(size * size) / (box[2] * box[3]);
    if (pixels == bk::Pixels::unit) truth = std::max(truth, 1.0) / 255;
    if (pixels == bk::Pixels::rounded) {
      const double whole = std::nearbyint(truth);
      const bool either = std::abs(std::abs(truth - std::floor(truth)) - 0.5) < 1e-4;
      truth = either && std::abs(planes[i] - truth) < 0.5001 ? std::nearbyint(planes[i]) : whole;
    }
    error(planes[i], truth);
  }
  double sum, square, true_sum = 0, true_square = 0;
  k::sums(y.data(), y.size(), &sum, &square);
  for (int64_t i = 0; i < y.size(); ++i) {
    true_sum += y[i];
    true_square += double{y[i]} * y[i];
  }
  of_sums(sum, true_sum);
  of_sums(square, true_square);
  Memory next(y.size());
  Doubles truth(y.size());
  for (int64_t i = 0; i < y.size(); ++i) {
    next[i] = static_cast<float>(1 + below(255));
    truth[i] = (double{next[i]} - y[i]) / (double{next[i]} + y[i] + 1e-7);
  }
  k::differences(y.data(), next.data(), y.size(), 1e-7f);
  for (int64_t i = 0; i < y.size(); ++i) of_differences(y[i], truth[i]);
  return std::max({error.value(), of_sums.value(), of_differences.value()});
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
