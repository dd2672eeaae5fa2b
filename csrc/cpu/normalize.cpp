// standardize and diff_normalize: one read for the statistics, one read and one write for the result.
#include "normalize.h"

#include "isa.h"
#include "tensor.h"

#define BK_KERNEL "normalize_kernel.h"
#include "each_isa.h"

namespace bk {
namespace {

// Spans of `rows` rows of `length`, the rows of one stretch of columns after another: a frame that is read as the later of
// two is in L1 when it is read as the earlier one.
struct Spans {
  int64_t rows, length;

  int64_t count() const { return rows * ((length + kSpan - 1) / kSpan); }
  int64_t start(int64_t k) const { return k % rows * length + k / rows * kSpan; }
  int64_t size(int64_t k) const { return std::min(kSpan, length - k / rows * kSpan); }
};

// `source(k)` gives what is normalised from the k-th value on.
template <class Source, class R>
void run(const Source& source, R* y, const Spans& spans, bool centred, std::optional<double> mean, std::optional<double> std) {
  Moments all{0, 0, 0};
  if (!std || (centred && !mean)) {
    std::vector<Moments> parts(spans.count());
    torch::stable::parallel_for(0, spans.count(), 4, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) parts[k] = BK_DISPATCH(moments, source(spans.start(k)), spans.size(k));
    });
    for (const Moments& part : parts) combine(all, part);
  }
  const double centre = centred ? mean.value_or(all.mean) : 0;
  const double spread = std.value_or(std::sqrt(all.m2 / static_cast<double>(all.n)));
  const double scale = spread == 0 ? 0 : 1 / spread;
  torch::stable::parallel_for(0, spans.count(), 4, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const int64_t start = spans.start(k);
      BK_DISPATCH(normalize, source(start), spans.size(k), centre, scale, y + start);
    }
  });
}

Tensor normalized(const char* op, const Tensor& frames, bool difference, double eps, std::optional<double> mean,
                  std::optional<double> std) {
  const int64_t dim = frames.dim();
  STD_TORCH_CHECK(dim >= 1 && (!difference || frames.size(0) >= 1), op, " needs frames of (T, ...)");
  // channels_last keeps frames outermost, so its storage is read and written in order like a contiguous one.
  const bool nhwc = dim == 4 && wants_nhwc(frames);
  const Tensor x = nhwc || frames.is_contiguous() ? frames : torch::stable::contiguous(frames);
  std::vector<int64_t> size(dim), stride(dim);
  int64_t frame = 1;  // elements of a frame
  for (int64_t d = dim - 1; d >= 0; --d) {
    size[d] = x.size(d);
    stride[d] = std::max<int64_t>(frame, 1);
    if (d > 0) frame *= size[d];
  }
  if (difference) --size[0];
  const int32_t dtype = dtype_of(x);
  const bool wide = dtype == aoti_torch_dtype_float64();
  const int32_t real = wide ? dtype : aoti_torch_dtype_float32();
  Tensor y = nhwc ? empty4({size[0], size[1], size[2], size[3]}, real, true) : empty_cpu(size.data(), stride.data(), dim, real);
  if (y.numel() == 0) return y;
  const auto typed = [&](auto zero) {
    using E = decltype(zero);
    const E* in = static_cast<const E*>(x.const_data_ptr());
    Real<E>* out = static_cast<Real<E>*>(y.mutable_data_ptr());
    const Spans in_order{1, size[0] * frame};
    if (!difference) return run([=](int64_t k) { return Values<E>{in + k}; }, out, in_order, true, mean, std);
    const bool large = frame * static_cast<int64_t>(sizeof(E)) > (1 << 18);  // for L2
    const auto source = [=](int64_t k) { return Differences<E>{in + k, in + k + frame, static_cast<Real<E>>(eps)}; };
    run(source, out, large ? Spans{size[0], frame} : in_order, false, mean, std);
  };
  if (dtype == aoti_torch_dtype_uint8())
    typed(uint8_t{});
  else if (dtype == aoti_torch_dtype_float32())
    typed(float{});
  else if (dtype == aoti_torch_dtype_float16())
    typed(Half{});
  else if (dtype == aoti_torch_dtype_bfloat16())
    typed(BFloat16{});
  else if (wide)
    typed(double{});
  else
    STD_TORCH_CHECK(false, op, " needs frames of uint8, float32, float64, float16 or bfloat16");
  return y;
}

Tensor standardize(const Tensor& frames, std::optional<double> mean, std::optional<double> std) {
  return normalized("standardize", frames, false, 0, mean, std);
}

Tensor diff_normalize(const Tensor& frames, double eps, std::optional<double> std) {
  return normalized("diff_normalize", frames, true, eps, std::nullopt, std);
}

void rescale_(Tensor x, double shift, double factor) {
  STD_TORCH_CHECK(is_float(x) && x.is_contiguous(), "rescale_ needs contiguous float32");
  float* data = static_cast<float*>(x.mutable_data_ptr());
  const int64_t n = x.numel();
  torch::stable::parallel_for(0, (n + kSpan - 1) / kSpan, 8, [&](int64_t first, int64_t last) {
    const int64_t start = first * kSpan;
    BK_DISPATCH(rescale, data + start, std::min(n, last * kSpan) - start, static_cast<float>(shift), static_cast<float>(factor));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels_impl, CPU, m) { m.impl("rescale_", TORCH_BOX(&rescale_)); }

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("standardize", TORCH_BOX(&standardize));
  m.impl("diff_normalize", TORCH_BOX(&diff_normalize));
}

}  // namespace bk
