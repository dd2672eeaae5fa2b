// The temporal shift and its adjoint: one read, one write, any dtype and strides.
#include "launch.cuh"
#include "shift.cuh"

namespace bk {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 4;  // of a thread in flight

struct Frames {
  int64_t count, chunks;  // chunks of a frame, each a block's work
  uint32_t size;          // elements
  uint32_t fold, period;  // what divides a frame (NCHW) or a pixel (channels_last) into ranges
  bool rows;              // period counts within a pixel
  Shift shift;
};

// x and y are dense and of one layout: every element keeps its place in its frame.
template <int N, class E>
__global__ void __launch_bounds__(kThreads) shift_dense(const E* x, E* y, Frames f) {
  for (int64_t block = blockIdx.x; block < f.count * f.chunks; block += gridDim.x) {
    const int64_t frame = block / f.chunks, t = frame % f.shift.n;
    const E* frames[3];
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      const int64_t step = f.shift.step(t, part);
      frames[part] = step == Shift::kZeros ? nullptr : x + (frame + step) * f.size;
    }
    E* out = y + frame * f.size;
    const uint32_t start = static_cast<uint32_t>(block - frame * f.chunks) * (kLoads * kThreads * N) + threadIdx.x * N;
    Vector<E, N> v[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const uint32_t i = start + k * kThreads * N;
      if (i < f.size) v[k] = load_shifted<N>(frames, i, f.rows ? i % f.period : i, f.fold, f.period);
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const uint32_t i = start + k * kThreads * N;
      if (i < f.size) store<N>(out + i, v[k]);
    }
  }
}

// Any strides of both, an element at a time; also frames of 2^31 elements and more.
template <class E>
__global__ void __launch_bounds__(kThreads) shift_strided(const E* x, E* y, Size4 size, Size4 stride, Size4 out, int64_t fold,
                                                          Shift shift) {
  const int64_t count = size[0] * size[1] * size[2] * size[3], step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t row = i / size[3], w = i % size[3], plane = row / size[2], h = row % size[2];
    const int64_t frame = plane / size[1], c = plane % size[1];
    const int64_t on = shift.step(frame % shift.n, c < fold ? 0 : c < 2 * fold ? 1 : 2);
    const int64_t from = (frame + on) * stride[0] + c * stride[1] + h * stride[2] + w * stride[3];
    y[frame * out[0] + c * out[1] + h * out[2] + w * out[3]] = on == Shift::kZeros ? E{} : x[from];
  }
}

template <int N, class E>
void run_dense(const Queue& queue, const E* x, E* y, Frames f) {
  f.chunks = ceil_div(f.size, kLoads * kThreads * N);
  queue.launch(shift_dense<N, E>, f.count * f.chunks, kThreads, x, y, f);
}

template <class E>
void run(const Tensor& x, const Tensor& y, int64_t fold, const Shift& shift) {
  const Queue queue(x);
  const E* in = static_cast<const E*>(x.const_data_ptr());
  E* out = static_cast<E*>(y.mutable_data_ptr());
  const Size4 size = sizes4(x);
  const int64_t plane = size[2] * size[3], frame = size[1] * plane;
  const bool nhwc = wants_nhwc(x);
  if ((!nhwc && !is_nchw(x)) || frame > INT32_MAX) {
    const int64_t blocks = ceil_div(size[0] * frame, kThreads);
    return queue.launch(shift_strided<E>, blocks, kThreads, in, out, size, strides4(x), strides4(y), fold, shift);
  }
  const int64_t inner = nhwc ? 1 : plane;
  const Frames f{size[0],
                 0,
                 static_cast<uint32_t>(frame),
                 static_cast<uint32_t>(fold * inner),
                 static_cast<uint32_t>(size[1] * inner),
                 nhwc,
                 shift};
  constexpr int kMost = 16 / sizeof(E);
  if (frame % kMost == 0 && is_aligned(in, 16) && is_aligned(out, 16))
    run_dense<kMost>(queue, in, out, f);
  else
    run_dense<1>(queue, in, out, f);
}

struct alignas(16) Sixteen {
  uint64_t low, high;
};

Tensor shifted(const Tensor& x, int64_t n_segment, int64_t fold_div, bool wrap, int direction) {
  STD_TORCH_CHECK(x.dim() == 4 && n_segment > 0 && fold_div > 0 && x.size(0) % n_segment == 0,
                  "wtsm needs x of (B*n_segment, C, H, W), n_segment >= 1 and fold_div >= 1");
  Tensor y = empty4_on(x, sizes4(x), dtype_of(x));
  if (y.numel() == 0) return y;
  const Shift shift{n_segment, wrap, direction};
  const int64_t fold = x.size(1) / fold_div;
  switch (aoti_torch_dtype_element_size(dtype_of(x))) {
    case 1: run<uint8_t>(x, y, fold, shift); break;
    case 2: run<uint16_t>(x, y, fold, shift); break;
    case 4: run<uint32_t>(x, y, fold, shift); break;
    case 8: run<uint64_t>(x, y, fold, shift); break;
    default: run<Sixteen>(x, y, fold, shift);
  }
  return y;
}

Tensor wtsm(const Tensor& x, int64_t n_segment, int64_t fold_div, bool wrap) {
  return shifted(x, n_segment, fold_div, wrap, 1);
}

Tensor wtsm_backward(const Tensor& grad, int64_t n_segment, int64_t fold_div, bool wrap) {
  return shifted(grad, n_segment, fold_div, wrap, -1);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels_impl, BK_KEY, m) {
  m.impl("wtsm_cuda", TORCH_BOX(&wtsm));
  m.impl("wtsm_backward_cuda", TORCH_BOX(&wtsm_backward));
}

}  // namespace bk
