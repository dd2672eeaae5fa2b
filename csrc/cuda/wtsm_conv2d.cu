// Temporal shift + convolution + bias + activation as one product: pixels x (taps, channels) by (taps, channels) x filters.
//
// The left matrix is never written: a block gathers its tiles of it straight from x, of any strides, and the shift, padding,
// stride and dilation are addresses. While a tile is multiplied, the next one is on its way into registers.
#include "activation.cuh"
#include "launch.cuh"
#include "products.cuh"
#include "shift.cuh"

namespace bk {
namespace {

constexpr int64_t kFewPixels = 1 << 14;  // below, small tiles give every multiprocessor one

struct Conv {
  int64_t pixels;  // of all output frames
  int height, width, out_height, out_width;
  int channels, filters, groups;  // channels and filters of one group
  int depth;                      // channels times taps
  uint32_t fold;                  // of all channels
  int stride[2], padding[2], dilation[2];
  Divisor by_channels, by_kernel_width;  // depth -> tap -> row of the kernel
  int64_t x_stride[4], weight_stride[4], bias_stride, y_frame, y_filter, y_pixel;
  Shift shift;
  Activation activation;
};

// An output pixel: its frame's three sources, where its first tap reads, and where it is written.
template <class T>
struct Row {
  const T* frames[3];
  int64_t y;
  int h, w;
  bool inside;

  __device__ __forceinline__ static Row at(const T* x, const Conv& conv, int64_t pixel) {
    Row row{};
    row.inside = pixel < conv.pixels;
    if (!row.inside) return row;
    const int64_t area = static_cast<int64_t>(conv.out_height) * conv.out_width, frame = pixel / area, p = pixel % area;
    const int64_t t = frame % conv.shift.n;
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      const int64_t step = conv.shift.step(t, part);
      row.frames[part] = step == Shift::kZeros ? nullptr : x + (frame + step) * conv.x_stride[0];
    }
    row.y = frame * conv.y_frame + p * conv.y_pixel;
    row.h = static_cast<int>(p / conv.out_width) * conv.stride[0] - conv.padding[0];
    row.w = static_cast<int>(p % conv.out_width) * conv.stride[1] - conv.padding[1];
    return row;
  }

  // The offset of a tap in its frame; false outside the picture.
  __device__ __forceinline__ bool tap(const Conv& conv, int kernel_row, int kernel_column, int64_t& offset) const {
    const int y = h + kernel_row * conv.dilation[0], x = w + kernel_column * conv.dilation[1];
    offset = y * conv.x_stride[2] + x * conv.x_stride[3];
    return inside && y >= 0 && y < conv.height && x >= 0 && x < conv.width;
  }
};

// Depth k as a tap and a channel of the group.
struct Depth {
  int row, column, channel;

  __device__ __forceinline__ Depth(const Conv& conv, int k) {
    const int tap = static_cast<int>(conv.by_channels.quotient(k));
    channel = k - tap * conv.channels;
    row = static_cast<int>(conv.by_kernel_width.quotient(tap));
    column = tap - row * static_cast<int>(conv.by_kernel_width.divisor);
  }
};

// A thread's part of the left tile, by pixels: any strides; neighbouring threads read neighbouring pixels.
template <class T, class Tile>
class ByPixels {
 public:
  __device__ __forceinline__ ByPixels(const Row<T>* rows) : row_(rows[threadIdx.x % Tile::kRows]) {}

  __device__ __forceinline__ void fetch(const Conv& conv, int first_channel, int start) {
    int64_t offset = 0;
    int row = -1, column = -1;
    bool inside = false;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int k = start + depth(i);
      v_[i] = T(0);
      if (k >= conv.depth) continue;
      const Depth at(conv, k);
      if (at.row != row || at.column != column) {  // seldom, and for a whole warp at once
        row = at.row;
        column = at.column;
        inside = row_.tap(conv, row, column, offset);
      }
      const int channel = first_channel + at.channel, part = part_of(channel, conv.fold);
      const T* frame = part == 0 ? row_.frames[0] : part == 1 ? row_.frames[1] : row_.frames[2];
      if (inside && frame != nullptr) v_[i] = frame[offset + channel * conv.x_stride[1]];
    }
  }
  template <class Product>
  __device__ __forceinline__ void put(T* a) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) a[Tile::a(threadIdx.x % Tile::kRows, depth(i))] = Product::stored(v_[i]);
  }

 private:
  static constexpr int kAtOnce = kProductThreads / Tile::kRows, kCount = Tile::kDepth / kAtOnce;
  __device__ __forceinline__ static int depth(int i) { return static_cast<int>(threadIdx.x) / Tile::kRows + i * kAtOnce; }

  Row<T> row_;
  T v_[kCount];
};

// The same by channels, 16 bytes at once, where they are neighbours in memory.
template <class T, class Tile>
class ByChannels {
 public:
  __device__ __forceinline__ ByChannels(const Row<T>* rows) : rows_(rows) {}

  __device__ __forceinline__ void fetch(const Conv& conv, int first_channel, int start) {
    const int k = start + depth();
    const Depth at(conv, k);
    const int channel = first_channel + at.channel;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Row<T>& row = rows_[row_of(i)];
      int64_t offset;
      v_[i] = {};
      if (k < conv.depth && row.tap(conv, at.row, at.column, offset))
        v_[i] = load_shifted<kWidth>(row.frames, offset + channel, channel, conv.fold, UINT32_MAX);
    }
  }
  template <class Product>
  __device__ __forceinline__ void put(T* a) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      Vector<T, kWidth> stored;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) stored.v[j] = Product::stored(v_[i].v[j]);
      store<kWidth>(a + Tile::a(row_of(i), depth()), stored);
    }
  }

 private:
  static constexpr int kWidth = 16 / sizeof(T), kAcross = Tile::kDepth / kWidth, kDown = kProductThreads / kAcross;
  static constexpr int kCount = Tile::kRows / kDown;
  __device__ __forceinline__ static int depth() { return static_cast<int>(threadIdx.x) % kAcross * kWidth; }
  __device__ __forceinline__ static int row_of(int i) { return static_cast<int>(threadIdx.x) / kAcross + i * kDown; }

  const Row<T>* rows_;
  Vector<T, kWidth> v_[kCount];
};

// A thread's part of the right tile: one depth, several filters.
template <class T, class Tile>
class Filters {
 public:
  __device__ __forceinline__ void fetch(const Conv& conv, const T* weight, int filters, int start) {
    const int k = start + depth();
    const Depth at(conv, k);
    const T* p = weight + at.channel * conv.weight_stride[1] + at.row * conv.weight_stride[2] + at.column * conv.weight_stride[3];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      v_[i] = k < conv.depth && filter(i) < filters ? p[filter(i) * conv.weight_stride[0]] : T(0);
  }
  template <class Product>
  __device__ __forceinline__ void put(T* b) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) b[Tile::b(depth(), filter(i))] = Product::stored(v_[i]);
  }

 private:
  static constexpr int kAtOnce = kProductThreads / Tile::kDepth, kCount = Tile::kColumns / kAtOnce;
  __device__ __forceinline__ static int depth() { return static_cast<int>(threadIdx.x) % Tile::kDepth; }
  __device__ __forceinline__ static int filter(int i) { return static_cast<int>(threadIdx.x) / Tile::kDepth + i * kAtOnce; }

  T v_[kCount];
};

template <class T, class Tile, class Product, class Gather>
__global__ void __launch_bounds__(kProductThreads) convolve(const T* x, const T* weight, const T* bias, T* y, Conv conv) {
  using Sum = typename Product::Sum;
  constexpr int kOperands = 2 * (Tile::kSizeA + Tile::kSizeB) * static_cast<int>(sizeof(T));
  constexpr int kResult = Tile::kSizeC * static_cast<int>(sizeof(Sum));
  alignas(128) __shared__ unsigned char memory[kOperands > kResult ? kOperands : kResult];
  __shared__ Row<T> rows[Tile::kRows];
  T* const a = reinterpret_cast<T*>(memory);
  T* const b = a + 2 * Tile::kSizeA;
  Sum* const c = reinterpret_cast<Sum*>(memory);
  const int tiles = (conv.filters + Tile::kColumns - 1) / Tile::kColumns;
  const int64_t across = static_cast<int64_t>(tiles) * conv.groups, down = (conv.pixels + Tile::kRows - 1) / Tile::kRows;
  const bool by_rows = conv.y_filter == 1;

  for (int64_t block = blockIdx.x; block < down * across; block += gridDim.x) {
    const int64_t first_pixel = block / across * Tile::kRows;
    const int group = static_cast<int>(block % across) / tiles, first_filter = static_cast<int>(block % across) % tiles * Tile::kColumns;
    const int filters = min(Tile::kColumns, conv.filters - first_filter);
    const int64_t filter = static_cast<int64_t>(group) * conv.filters + first_filter;  // of all groups
    if (threadIdx.x < Tile::kRows) rows[threadIdx.x] = Row<T>::at(x, conv, first_pixel + threadIdx.x);
    __syncthreads();

    Product product;
    Gather left(rows);
    Filters<T, Tile> right;
    const T* const filters_from = weight + filter * conv.weight_stride[0];
    left.fetch(conv, group * conv.channels, 0);
    right.fetch(conv, filters_from, filters, 0);
    for (int k = 0, half = 0; k < conv.depth; k += Tile::kDepth, half ^= 1) {
      left.template put<Product>(a + half * Tile::kSizeA);
      right.template put<Product>(b + half * Tile::kSizeB);
      __syncthreads();  // one is enough: the other half is written only after this one has been read by all
      if (k + Tile::kDepth < conv.depth) {
        left.fetch(conv, group * conv.channels, k + Tile::kDepth);
        right.fetch(conv, filters_from, filters, k + Tile::kDepth);
      }
      product.add(a + half * Tile::kSizeA, b + half * Tile::kSizeB);
    }

    __syncthreads();
    product.store(c, by_rows);
    __syncthreads();
    for (int i = threadIdx.x; i < Tile::kRows * Tile::kColumns; i += kProductThreads) {
      const int row = by_rows ? i / Tile::kColumns : i % Tile::kRows, column = by_rows ? i % Tile::kColumns : i / Tile::kRows;
      if (!rows[row].inside || column >= filters) continue;
      Sum v = c[by_rows ? row * Tile::kStrideByRows + column : column * Tile::kStrideByColumns + row];
      if (bias != nullptr) v += static_cast<Sum>(bias[(filter + column) * conv.bias_stride]);
      y[rows[row].y + (filter + column) * conv.y_filter] = static_cast<T>(activate(v, conv.activation));
    }
    __syncthreads();
  }
}

template <class T>
struct Arguments {
  const T *x, *weight, *bias;
  T* y;
  Conv conv;
};

template <class T, template <class, class> class Product, int kRows, int kColumns>
void run_tile(const Queue& queue, const Arguments<T>& given, bool by_channels) {
  const Conv& conv = given.conv;
  const int64_t blocks = ceil_div(conv.pixels, kRows) * ceil_div(conv.filters, kColumns) * conv.groups;
  const auto launch = [&](auto kernel) {
    queue.launch(kernel, blocks, kProductThreads, given.x, given.weight, given.bias, given.y, conv);
  };
  using Rows = Tile<T, kRows, kColumns, false>;
  using Turned = Tile<T, kRows, kColumns, true>;
  if (by_channels)
    launch(convolve<T, Rows, Product<T, Rows>, ByChannels<T, Rows>>);
  else
    launch(convolve<T, Turned, Product<T, Turned>, ByPixels<T, Turned>>);
}

template <class T, template <class, class> class Product>
void run(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& y, const Conv& conv) {
  const Arguments<T> given{static_cast<const T*>(x.const_data_ptr()), static_cast<const T*>(weight.const_data_ptr()),
                           bias.has_value() ? static_cast<const T*>(bias->const_data_ptr()) : nullptr,
                           static_cast<T*>(y.mutable_data_ptr()), conv};
  constexpr int64_t kWidth = 16 / sizeof(T);
  bool by_channels = conv.channels % kWidth == 0 && x.stride(1) == 1 && is_aligned(given.x, 16);
  for (const int d : {0, 2, 3}) by_channels = by_channels && (x.size(d) == 1 || x.stride(d) % kWidth == 0);
  const Queue queue(x);
  if constexpr (sizeof(T) <= 4) {
    if (conv.pixels >= kFewPixels) {
      if (conv.filters > 32) return run_tile<T, Product, 128, 64>(queue, given, by_channels);
      return run_tile<T, Product, 128, 32>(queue, given, by_channels);
    }
  }
  run_tile<T, Product, 32, 32>(queue, given, by_channels);
}

Tensor wtsm_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t n_segment,
                   int64_t fold_div, bool wrap, const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                   const std::vector<int64_t>& dilation, int64_t groups, const std::string& activation, bool tf32) {
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && n_segment > 0 && fold_div > 0 && groups > 0 &&
                      x.size(0) % n_segment == 0 && x.size(1) == weight.size(1) * groups && weight.size(0) % groups == 0,
                  "wtsm_conv2d needs x of (B*n_segment, C, H, W) and weight of (Cout, C/groups, kh, kw)");
  STD_TORCH_CHECK(!bias.has_value() || bias->numel() == weight.size(0), "bias must be (Cout,)");
  Size4 size{x.size(0), weight.size(0), 0, 0};
  for (int d = 0; d < 2; ++d)
    size[d + 2] = (x.size(d + 2) + 2 * padding[d] - dilation[d] * (weight.size(d + 2) - 1) - 1) / stride[d] + 1;
  const int32_t dtype = dtype_of(x);
  STD_TORCH_CHECK(dtype_of(weight) == dtype && (!bias.has_value() || dtype_of(*bias) == dtype),
                  "wtsm_conv2d needs x, weight and bias of one dtype");
  STD_TORCH_CHECK(is_float(x) || is_half(x) || dtype == aoti_torch_dtype_float64(),
                  "wtsm_conv2d needs float32, float64, float16 or bfloat16");
  const Tensor y = empty4_on(x, size, dtype);
  if (y.numel() == 0) return y;
  const int64_t taps = weight.size(2) * weight.size(3);
  for (const int64_t n : {x.size(1) * taps, x.size(2) + 2 * padding[0], x.size(3) + 2 * padding[1], size[1]})
    STD_TORCH_CHECK(n < INT32_MAX / 2, "wtsm_conv2d needs C*kh*kw, Cout and padded sides below 2^30, got ", n);
  Conv conv{};
  conv.pixels = size[0] * size[2] * size[3];
  conv.height = static_cast<int>(x.size(2));
  conv.width = static_cast<int>(x.size(3));
  conv.out_height = static_cast<int>(size[2]);
  conv.out_width = static_cast<int>(size[3]);
  conv.channels = static_cast<int>(weight.size(1));
  conv.filters = static_cast<int>(size[1] / groups);
  conv.groups = static_cast<int>(groups);
  conv.depth = static_cast<int>(weight.size(1) * taps);
  conv.fold = static_cast<uint32_t>(x.size(1) / fold_div);
  conv.by_channels = Divisor(static_cast<uint32_t>(std::max<int64_t>(weight.size(1), 1)));
  conv.by_kernel_width = Divisor(static_cast<uint32_t>(std::max<int64_t>(weight.size(3), 1)));
  for (int d = 0; d < 2; ++d) {
    conv.stride[d] = static_cast<int>(stride[d]);
    conv.padding[d] = static_cast<int>(padding[d]);
    conv.dilation[d] = static_cast<int>(dilation[d]);
  }
  for (int d = 0; d < 4; ++d) {
    conv.x_stride[d] = x.stride(d);
    conv.weight_stride[d] = weight.stride(d);
  }
  const int64_t area = size[2] * size[3];
  const bool nhwc = wants_nhwc(x);
  conv.bias_stride = bias.has_value() ? bias->stride(0) : 0;
  conv.y_frame = size[1] * area;
  conv.y_filter = nhwc ? 1 : area;
  conv.y_pixel = nhwc ? size[1] : 1;
  conv.shift = {n_segment, wrap, 1};
  conv.activation = activation_of(activation);
  if (dtype == aoti_torch_dtype_float16())
    run<Half, TensorCores>(x, weight, bias, y, conv);
  else if (dtype == aoti_torch_dtype_bfloat16())
    run<BFloat16, TensorCores>(x, weight, bias, y, conv);
  else if (dtype == aoti_torch_dtype_float64())
    run<double, MultiplyAdds>(x, weight, bias, y, conv);
  else if (tf32)
    run<float, TensorCores>(x, weight, bias, y, conv);
  else
    run<float, MultiplyAdds>(x, weight, bias, y, conv);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels_impl, BK_KEY, m) { m.impl("wtsm_conv2d_cuda", TORCH_BOX(&wtsm_conv2d)); }

}  // namespace bk
