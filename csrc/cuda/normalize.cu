// standardize and diff_normalize: one read for the statistics, one read and one write for the result.
//
// The sums are taken in one order that depends on the size alone: a thread adds its values in steps, a block its threads, and
// every block of the second pass the blocks of the first.
#include "launch.cuh"
#include "vector.cuh"

#include <type_traits>

namespace bk {
namespace {

constexpr int kThreads = 256;
constexpr int kVectors = 4, kLoads = 4;       // values of a vector, vectors of a thread in flight
constexpr int kGroup = kVectors * kLoads;     // values that are summed in their own precision before they join the others
constexpr int64_t kStep = kThreads * kGroup;  // values of a block's step
constexpr int64_t kSummers = 1024;            // blocks of the first pass at most, what each of the second adds up
constexpr int64_t kScalers = 4096;            // blocks of the second pass at most

template <class E>
using Real = std::conditional_t<std::is_same_v<E, double>, double, float>;

// What is normalised: the values themselves, or how they differ from those a frame further on.
template <class E, bool kDifference>
struct Values {
  const E *x, *next;
  Real<E> eps;

  template <int N>
  __device__ __forceinline__ void read(int64_t i, Real<E> (&y)[N]) const {
    const Vector<E, N> before = load<N>(x + i);
    if constexpr (kDifference) {
      const Vector<E, N> after = load<N>(next + i);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const Real<E> a = static_cast<Real<E>>(after.v[k]), b = static_cast<Real<E>>(before.v[k]);
        if constexpr (std::is_same_v<E, uint8_t>)  // bytes leave nothing to round but the quotient
          y[k] = __fdividef(a - b, a + b + eps);
        else
          y[k] = (a - b) / (a + b + eps);
      }
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) y[k] = static_cast<Real<E>>(before.v[k]);
    }
  }
};

// Of values less an origin: their sum and that of their squares.
struct Sums {
  double sum = 0, square = 0;

  __device__ __forceinline__ void operator+=(const Sums& other) {
    sum += other.sum;
    square += other.square;
  }

  // `count` values by their distances from the first, taken in R; false where their squares left its range.
  template <class R, class V>
  __device__ __forceinline__ bool add(const V (&v)[kGroup], int count, double origin) {
    R sum_r = 0, square_r = 0, largest = 0;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const R d = k < count ? static_cast<R>(v[k]) - static_cast<R>(v[0]) : R(0);
      sum_r += d;
      square_r += d * d;
      largest = d < 0 ? (-d > largest ? -d : largest) : (d > largest ? d : largest);
    }
    if (std::is_same_v<R, float> && largest > 0 && !(largest > 1e-15f && largest < 1e18f)) return false;
    const double pivot = static_cast<double>(v[0]) - origin, s = static_cast<double>(sum_r);
    sum += count * pivot + s;
    square += (count * pivot + 2 * s) * pivot + static_cast<double>(square_r);
    return true;
  }
};

// The sum over a block's threads, at thread 0: a tree over each warp, then over the warps.
__device__ __forceinline__ Sums block_sum(Sums s) {
  __shared__ Sums warps[kThreads / 32];
#pragma unroll
  for (int far = 16; far > 0; far /= 2)
    s += Sums{__shfl_down_sync(0xffffffffu, s.sum, far), __shfl_down_sync(0xffffffffu, s.square, far)};
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / 32; ++w) s += warps[w];
  }
  return s;
}

template <class R, class Source>
__device__ __forceinline__ double origin_of(const Source& source) {
  R first[1];
  source.read(0, first);
  return static_cast<double>(first[0]);
}

// N values at once: kVectors, or 1 where memory is not aligned for that.
template <int N, class R, class Source>
__global__ void __launch_bounds__(kThreads) sum_values(Source source, int64_t count, Sums* partial) {
  const double origin = origin_of<R>(source);
  Sums sums;
  for (int64_t start = blockIdx.x * kStep; start < count; start += gridDim.x * kStep) {
    R v[kGroup];
    int found = 0;  // a thread's values are the first ones of v
#pragma unroll
    for (int k = 0; k < kGroup / N; ++k) {
      const int64_t i = start + (k * kThreads + threadIdx.x) * N;
      if (i >= count) continue;
      R some[N];
      source.read(i, some);
#pragma unroll
      for (int j = 0; j < N; ++j) v[k * N + j] = some[j];
      found = (k + 1) * N;
    }
    if (found > 0 && !sums.add<R>(v, found, origin)) sums.add<double>(v, found, origin);
  }
  sums = block_sum(sums);
  if (threadIdx.x == 0) partial[blockIdx.x] = sums;
}

struct Given {
  bool mean, std;  // given from outside?
  double centre, spread;
};

template <int N, class R, class Source>
__global__ void __launch_bounds__(kThreads) scale_values(Source source, int64_t count, const Sums* partial, int parts, Given given,
                                                         R* y) {
  __shared__ R shared[3];
  if (!given.mean || !given.std) {
    Sums sums;
    for (int p = threadIdx.x; p < parts; p += kThreads) sums += partial[p];
    sums = block_sum(sums);
    if (threadIdx.x == 0) {
      const double n = static_cast<double>(count), shift = sums.sum / n, variance = sums.square / n - shift * shift;
      if (!given.mean) given.centre = origin_of<R>(source) + shift;
      if (!given.std) given.spread = sqrt(variance < 0 ? 0.0 : variance);
    }
  }
  if (threadIdx.x == 0) {
    // The centre in two parts: what is left of it beyond R's precision counts where the values are close to it.
    const R centre = static_cast<R>(given.centre);
    shared[0] = centre;
    shared[1] = isfinite(centre) ? static_cast<R>(given.centre - static_cast<double>(centre)) : R(0);
    shared[2] = given.spread == 0 ? R(0) : static_cast<R>(1 / given.spread);
  }
  __syncthreads();
  const R centre = shared[0], rest = shared[1], scale = shared[2];
  for (int64_t start = blockIdx.x * kStep; start < count; start += gridDim.x * kStep) {
    R v[kGroup / N][N];
#pragma unroll
    for (int k = 0; k < kGroup / N; ++k) {
      const int64_t i = start + (k * kThreads + threadIdx.x) * N;
      if (i < count) source.read(i, v[k]);
    }
#pragma unroll
    for (int k = 0; k < kGroup / N; ++k) {
      const int64_t i = start + (k * kThreads + threadIdx.x) * N;
      if (i >= count) continue;
      Vector<R, N> out;
#pragma unroll
      for (int j = 0; j < N; ++j) out.v[j] = ((v[k][j] - centre) - rest) * scale;
      store<N>(y + i, out);
    }
  }
}

template <int N, class R, class Source>
void run(const Tensor& x, const Source& source, R* y, int64_t count, const Given& given) {
  const Queue queue(x);
  const int64_t steps = ceil_div(count, kStep), parts = std::min(steps, kSummers);
  const Tensor partial = empty_on(x, {parts, 2}, aoti_torch_dtype_float64());
  Sums* sums = static_cast<Sums*>(partial.mutable_data_ptr());
  if (!given.mean || !given.std) queue.launch(sum_values<N, R, Source>, parts, kThreads, source, count, sums);
  queue.launch(scale_values<N, R, Source>, std::min(steps, kScalers), kThreads, source, count, sums, static_cast<int>(parts),
               given, y);
}

template <class E>
void run(const Tensor& x, const Tensor& y, bool difference, double eps, const Given& given) {
  const E* in = static_cast<const E*>(x.const_data_ptr());
  Real<E>* out = static_cast<Real<E>*>(y.mutable_data_ptr());
  const int64_t count = y.numel(), frame = x.numel() - count;
  const bool vectors =
      count % kVectors == 0 && frame % kVectors == 0 && is_aligned(in, alignof(Vector<E, kVectors>)) && is_aligned(out, 16);
  const auto on = [&](const auto& source) {
    if (vectors)
      run<kVectors, Real<E>>(x, source, out, count, given);
    else
      run<1, Real<E>>(x, source, out, count, given);
  };
  if (difference)
    on(Values<E, true>{in, in + frame, static_cast<Real<E>>(eps)});
  else
    on(Values<E, false>{in, nullptr, 0});
}

Tensor normalized(const char* op, const Tensor& frames, bool difference, double eps, const Given& given) {
  const int64_t dim = frames.dim();
  STD_TORCH_CHECK(dim >= 1 && (!difference || frames.size(0) >= 1), op, " needs frames of (T, ...)");
  // channels_last keeps frames outermost, so its storage is read and written in order like a contiguous one.
  const bool nhwc = dim == 4 && wants_nhwc(frames);
  const Tensor x = nhwc || frames.is_contiguous() ? frames : torch::stable::contiguous(frames);
  std::vector<int64_t> size(dim);
  for (int64_t d = 0; d < dim; ++d) size[d] = x.size(d);
  if (difference) --size[0];
  const int32_t dtype = dtype_of(x);
  const int32_t real = dtype == aoti_torch_dtype_float64() ? dtype : aoti_torch_dtype_float32();
  Tensor y = nhwc ? empty4_on(x, {size[0], size[1], size[2], size[3]}, real) : empty_on(x, size, real);
  if (y.numel() == 0) return y;
  if (dtype == aoti_torch_dtype_uint8())
    run<uint8_t>(x, y, difference, eps, given);
  else if (dtype == aoti_torch_dtype_float32())
    run<float>(x, y, difference, eps, given);
  else if (dtype == aoti_torch_dtype_float16())
    run<Half>(x, y, difference, eps, given);
  else if (dtype == aoti_torch_dtype_bfloat16())
    run<BFloat16>(x, y, difference, eps, given);
  else if (dtype == aoti_torch_dtype_float64())
    run<double>(x, y, difference, eps, given);
  else
    STD_TORCH_CHECK(false, op, " needs frames of uint8, float32, float64, float16 or bfloat16");
  return y;
}

Tensor standardize(const Tensor& frames, std::optional<double> mean, std::optional<double> std) {
  return normalized("standardize", frames, false, 0, {mean.has_value(), std.has_value(), mean.value_or(0), std.value_or(0)});
}

Tensor diff_normalize(const Tensor& frames, double eps, std::optional<double> std) {
  return normalized("diff_normalize", frames, true, eps, {true, std.has_value(), 0, std.value_or(0)});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels_impl, BK_KEY, m) {
  m.impl("standardize_cuda", TORCH_BOX(&standardize));
  m.impl("diff_normalize_cuda", TORCH_BOX(&diff_normalize));
}

}  // namespace bk
