// From decoded frames to resized pixels, averaged difference frames and their sums, in one pass over the bytes.
#include "bigsmall_inputs.h"

#include "isa.h"
#include "memory.h"
#include "tensor.h"

#define BK_KERNEL "bigsmall_inputs_kernel.h"
#include "each_isa.h"

namespace bk {
namespace {

using Box = std::array<double, 4>;

struct Inputs {
  const uint8_t* frames;
  Size4 size, stride;
  const double* boxes;
  int64_t big_size, small_size, every;
  Pixels pixels;
  float eps;
  float *big, *small;
  double* sums;

  Box box(int64_t t) const { return {boxes[4 * t], boxes[4 * t + 1], boxes[4 * t + 2], boxes[4 * t + 3]}; }
};

// Resizes frame after frame; the axes of a box are kept until another box comes.
class Resizer {
 public:
  explicit Resizer(const Inputs& in) : in_(in) {}

  void operator()(int64_t t, const Box& box, const Use& use) {
    if (!rows_ || box != box_) {
      box_ = box;
      rows_.emplace(box[1], box[3], in_.big_size, in_.size[1]);
      columns_.emplace(box[0], box[2], in_.big_size, in_.size[2]);
      if (isa() >= Isa::avx512_vnni) columns_->group();
      if (columns_->quads.empty() && rows_->fits_bytes && columns_->fits_bytes) {
        rows_->pair();
        columns_->pair();
        if (isa() >= Isa::avx512) columns_->spread();
      }
      scratch_ = floats(scratch(*columns_));
    }
    const uint8_t* x = in_.frames + t * in_.stride[0] + rows_->start * in_.stride[1] + columns_->start * in_.stride[2];
    const uint8_t* next = t + 1 < in_.size[0] ? x + in_.stride[0] : x;
    int64_t stride = in_.stride[1];
    if (in_.stride[3] != 1 || in_.stride[2] != 3) {  // not interleaved: copied so
      stride = 3 * columns_->extent;
      copy_.resize(rows_->extent * stride);
      for (int64_t i = 0; i < rows_->extent; ++i) {
        for (int64_t j = 0; j < columns_->extent; ++j) {
          for (int64_t c = 0; c < 3; ++c)
            copy_[i * stride + 3 * j + c] = x[i * in_.stride[1] + j * in_.stride[2] + c * in_.stride[3]];
        }
      }
      x = next = copy_.data();
    }
    BK_DISPATCH(frame, {x, next, stride, *rows_, *columns_, in_.pixels}, use, scratch_.get());
  }

 private:
  const Inputs& in_;
  Box box_{};
  std::optional<Axis> rows_, columns_;
  Floats scratch_;
  std::vector<uint8_t> copy_;
};

// Frames [first, last), and the one after, which their last difference reads.
void run(const Inputs& in, int64_t first, int64_t last) {
  const int64_t big = 3 * in.big_size * in.big_size, small = 3 * in.small_size * in.small_size;
  Resizer resizer(in);
  const Axis down(0, static_cast<double>(in.big_size), in.small_size, in.big_size);
  const Floats x = floats(big + kPad);
  const auto alone = [&](int64_t t) {
    float* planes = t % in.every == 0 ? in.big + t / in.every * big : nullptr;
    return Use{x.get(), true, in.sums + 4 * t, planes, nullptr, in.eps, nullptr, nullptr};
  };
  resizer(first, in.box(first), alone(first));
  for (int64_t t = first; t < last; ++t) {
    double* of_differences = in.sums + 4 * t + 2;
    of_differences[0] = of_differences[1] = 0;
    if (t + 1 == in.size[0]) break;
    const bool more = t + 1 < last, keep = more && in.box(t + 1) == in.box(t);
    Use use = keep ? alone(t + 1) : Use{x.get(), false, nullptr, nullptr, nullptr, in.eps, nullptr, nullptr};
    use.down = &down;
    use.of_differences = of_differences;
    use.small = in.small + t * small;
    resizer(t + 1, in.box(t), use);
    if (more && !keep) resizer(t + 1, in.box(t + 1), alone(t + 1));
  }
}

std::tuple<Tensor, Tensor, Tensor> bigsmall_inputs(const Tensor& frames, const Tensor& boxes, int64_t big_size,
                                                   int64_t small_size, int64_t every, std::string pixels, double eps) {
  STD_TORCH_CHECK(frames.dim() == 4 && frames.size(3) == 3 && frames.size(0) >= 1 && dtype_of(frames) == aoti_torch_dtype_uint8(),
                  "bigsmall_inputs needs frames of (T, H, W, 3), T >= 1, uint8");
  const int64_t n = frames.size(0);
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(0) == n && boxes.size(1) == 4 && dtype_of(boxes) == aoti_torch_dtype_float64(),
                  "bigsmall_inputs needs boxes of (T, 4), float64");
  STD_TORCH_CHECK(big_size >= 1 && small_size >= 1 && small_size <= big_size && every >= 1,
                  "bigsmall_inputs needs 1 <= small_size <= big_size and every >= 1");
  STD_TORCH_CHECK(pixels == "exact" || pixels == "unit" || pixels == "rounded",
                  "bigsmall_inputs needs pixels exact, unit or rounded, got ", pixels);
  const Tensor box = torch::stable::contiguous(boxes);
  const double* b = static_cast<const double*>(box.const_data_ptr());
  const double height = static_cast<double>(frames.size(1)), width = static_cast<double>(frames.size(2));
  for (int64_t t = 0; t < n; ++t, b += 4) {
    STD_TORCH_CHECK(b[0] >= 0 && b[1] >= 0 && b[2] > 0 && b[3] > 0 && b[0] < width && b[1] < height &&
                        b[0] + b[2] <= width && b[1] + b[3] <= height,
                    "boxes must lie inside the picture, not so at frame ", t);
  }
  const int64_t sums_size[] = {n, 4}, sums_stride[] = {4, 1};
  Tensor big = empty4({(n + every - 1) / every, 3, big_size, big_size}, aoti_torch_dtype_float32(), false);
  Tensor small = empty4({n - 1, 3, small_size, small_size}, aoti_torch_dtype_float32(), false);
  Tensor sums = empty_cpu(sums_size, sums_stride, 2, aoti_torch_dtype_float64());
  const Inputs in{static_cast<const uint8_t*>(frames.const_data_ptr()),
                  sizes4(frames),
                  strides4(frames),
                  static_cast<const double*>(box.const_data_ptr()),
                  big_size,
                  small_size,
                  every,
                  pixels == "unit" ? Pixels::unit : pixels == "rounded" ? Pixels::rounded : Pixels::exact,
                  static_cast<float>(eps),
                  static_cast<float*>(big.mutable_data_ptr()),
                  static_cast<float*>(small.mutable_data_ptr()),
                  static_cast<double*>(sums.mutable_data_ptr())};
  torch::stable::parallel_for(0, n, 1, [&](int64_t first, int64_t last) { run(in, first, last); });
  return {big, small, sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) { m.impl("bigsmall_inputs", TORCH_BOX(&bigsmall_inputs)); }

}  // namespace bk
