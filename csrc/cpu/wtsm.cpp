// The temporal shift and its adjoint: one read, one write, any dtype and strides.
#include "shift.h"
#include "tensor.h"

namespace bk {
namespace {

int64_t grain(int64_t bytes_each) { return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, bytes_each)); }

// Planes (frame, channel) in order; neighbours of one channel range are copied together.
void shift_nchw(const char* x, char* y, int64_t frames, int64_t plane, const Shift& s) {
  torch::stable::parallel_for(0, frames * s.channels, grain(plane), [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last;) {
      const int64_t frame = p / s.channels, c = p % s.channels, t = frame % s.n;
      const int part = c < s.end(0) ? 0 : c < s.end(1) ? 1 : 2;
      const int64_t count = std::min(last - p, s.end(part) - c);
      const int64_t from = s.source(t, part);
      if (from < 0)
        std::memset(y + p * plane, 0, count * plane);
      else
        std::memcpy(y + p * plane, x + ((frame - t + from) * s.channels + c) * plane, count * plane);
      p += count;
    }
  });
}

template <class E>
void shift_nhwc(const E* x, E* y, int64_t frames, int64_t pixels, const Shift& s) {
  const int64_t image = pixels * s.channels;
  torch::stable::parallel_for(0, frames * pixels, grain(s.channels * sizeof(E)), [&](int64_t first, int64_t last) {
    for (int64_t q = first; q < last;) {
      const int64_t frame = q / pixels, t = frame % s.n, stop = std::min(last, (frame + 1) * pixels);
      for (int part = 0; part < 3; ++part) {
        const int64_t from = s.source(t, part), begin = s.begin(part), end = s.end(part);
        E* out = y + q * s.channels;
        const E* in = x + (frame - t + from) * image + (q - frame * pixels) * s.channels;
        for (int64_t r = q; r < stop; ++r, out += s.channels, in += s.channels) {
          if (from < 0)
            std::fill(out + begin, out + end, E{});
          else
            std::copy(in + begin, in + end, out + begin);
        }
      }
      q = stop;
    }
  });
}

template <class E>
void shift_strided(const E* x, const Size4& stride, E* y, const Size4& size, const Shift& s) {
  torch::stable::parallel_for(0, size[0] * size[1], grain(size[2] * size[3] * sizeof(E)), [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t frame = p / size[1], c = p % size[1], t = frame % s.n;
      const int64_t from = s.source(t, c < s.end(0) ? 0 : c < s.end(1) ? 1 : 2);
      E* out = y + p * size[2] * size[3];
      for (int64_t i = 0; i < size[2]; ++i) {
        const E* in = x + (frame - t + from) * stride[0] + c * stride[1] + i * stride[2];
        for (int64_t j = 0; j < size[3]; ++j) *out++ = from < 0 ? E{} : in[j * stride[3]];
      }
    }
  });
}

struct alignas(8) Pair {
  double re, im;
};

Tensor shift(const Tensor& x, int64_t n_segment, int64_t fold_div, bool wrap, int direction) {
  STD_TORCH_CHECK(x.dim() == 4 && n_segment > 0 && fold_div > 0 && x.size(0) % n_segment == 0,
                  "wtsm needs x of (B*n_segment, C, H, W), n_segment >= 1 and fold_div >= 1");
  const Size4 size = sizes4(x);
  const int32_t dtype = dtype_of(x);
  const bool nhwc = wants_nhwc(x);
  Tensor y = empty4(size, dtype, nhwc);
  if (y.numel() == 0) return y;
  const Shift s{n_segment, size[1], size[1] / fold_div, wrap, direction};
  const int64_t element = static_cast<int64_t>(aoti_torch_dtype_element_size(dtype));
  const void* in = x.const_data_ptr();
  void* out = y.mutable_data_ptr();
  if (is_nchw(x)) {
    shift_nchw(static_cast<const char*>(in), static_cast<char*>(out), size[0], size[2] * size[3] * element, s);
    return y;
  }
  const auto typed = [&](auto zero) {
    using E = decltype(zero);
    if (nhwc)
      shift_nhwc(static_cast<const E*>(in), static_cast<E*>(out), size[0], size[2] * size[3], s);
    else
      shift_strided(static_cast<const E*>(in), strides4(x), static_cast<E*>(out), size, s);
  };
  switch (element) {
    case 1: typed(uint8_t{}); break;
    case 2: typed(uint16_t{}); break;
    case 4: typed(uint32_t{}); break;
    case 8: typed(uint64_t{}); break;
    default: typed(Pair{});
  }
  return y;
}

Tensor wtsm(const Tensor& x, int64_t n_segment, int64_t fold_div, bool wrap) {
  return shift(x, n_segment, fold_div, wrap, 1);
}

Tensor wtsm_backward(const Tensor& grad, int64_t n_segment, int64_t fold_div, bool wrap) {
  return shift(grad, n_segment, fold_div, wrap, -1);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("wtsm", TORCH_BOX(&wtsm));
  m.impl("wtsm_backward", TORCH_BOX(&wtsm_backward));
}

}  // namespace bk
