// From decoded frames to resized pixels, averaged difference frames and their sums, in one pass over the bytes.
//
// A block owns a tile of a cell of the small picture, a thread a target pixel of it, frame after frame: what a frame's pixel
// is resized to is kept for the next difference. The tiles' sums are joined in order by a second, small kernel.
#include "launch.cuh"

#include <numeric>

namespace bk {
namespace {

constexpr int kSide = 16;  // a tile's rows and columns at most: a cell of 144 -> 9 is one tile
constexpr int kThreads = kSide * kSide;
constexpr int64_t kFrames = 8;  // of a block's stretch; the first of each stretch is resized once more
constexpr int kColours = 3;

enum class Pixels { exact, unit, rounded };

// A target's source pixels [first, last] and their weights; all between the two ends weigh `body`.
struct Span {
  int first, last;
  float head, body, tail;

  __device__ __forceinline__ float weight(int p) const { return p == first ? head : p == last ? tail : body; }
};

__device__ __forceinline__ int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// One axis of an exact-area resize from `length` pixels at `from` to `size` targets. Of a whole number of pixels the weights
// are whole too, in units of the common fraction: sums of bytes are then exact.
struct Axis {
  double from, length, unit;
  int size, pixels;

  __device__ __forceinline__ Axis(double from, double length, int size, int pixels)
      : from(from), length(length), unit(1), size(size), pixels(pixels) {
    if (from == floor(from) && length == floor(length))
      unit = static_cast<double>(size / common_divisor(static_cast<int64_t>(length), size));
  }
  __device__ __forceinline__ double total() const { return length * unit / size; }  // of a target's weights
  __device__ __forceinline__ Span span(int i) const {
    constexpr double kNothing = 1e-9;  // what rounding leaves of the neighbour of a whole edge
    const int start = max(0, min(static_cast<int>(from), pixels - 1));  // a box outside reads wrong pixels, not wrong memory
    const double offset = from - start;
    const double left = offset + length * i / size, right = offset + length * (i + 1) / size;
    const int end = pixels - 1 - start;
    const int first = max(0, min(static_cast<int>(left + kNothing), end));
    const int last = max(first, min(static_cast<int>(ceil(right - kNothing)) - 1, end));
    const double head = fmax(0.0, fmin(right, first + 1.0) - left), tail = fmax(0.0, fmin(right, last + 1.0) - last);
    return {start + first, start + last, static_cast<float>(head * unit), static_cast<float>(unit), static_cast<float>(tail * unit)};
  }
};

struct Inputs {
  const uint8_t* frames;
  int64_t count, height, width, stride[4];
  const double* boxes;
  int big_size, small_size, strips;  // a cell is cut into strips x strips tiles
  int64_t every;
  Pixels pixels;
  float eps;
  float *big, *small;
  double *sums, *partial;  // partial: kPartial numbers for each frame and tile

  __device__ __forceinline__ int64_t cells() const { return static_cast<int64_t>(small_size) * small_size; }
  __device__ __forceinline__ int64_t tiles() const { return cells() * strips * strips; }
  __device__ __forceinline__ Axis down() const { return Axis(0, big_size, small_size, big_size); }
};

constexpr int kPartial = 4 + kColours;  // a tile's sums of x, x^2, d, d^2, and its part of the cell's mean

// A strip of a cell along one axis: targets [begin, end), of which those before `shared` are the cell's own; the one that it
// shares with the next cell counts there.
struct Strip {
  Span cell;
  int begin, end, shared;

  __device__ __forceinline__ Strip(const Axis& down, int cell_index, int index, int strips) : cell(down.span(cell_index)) {
    const int count = cell.last + 1 - cell.first, each = (count + strips - 1) / strips;
    begin = min(cell.first + index * each, cell.last + 1);
    end = min(begin + each, cell.last + 1);
    shared = cell_index + 1 < down.size ? down.span(cell_index + 1).first : down.pixels;
  }
};

struct Shared {
  Span rows[kSide], columns[kSide];
  double share;  // of the weights' sum, that a source pixel of weight 1 has
  float before[kThreads][kColours], difference[kThreads][kColours], weight[kThreads];
  bool own[kThreads];
};

__device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
  for (int far = 16; far > 0; far /= 2) v += __shfl_down_sync(0xffffffffu, v, far);
  return v;
}

__device__ __forceinline__ void resize(const Inputs& in, int64_t frame, const Span& rows, const Span& columns, double share,
                                       float (&y)[kColours]) {
  double sum[kColours] = {};
  const uint8_t* row = in.frames + frame * in.stride[0] + rows.first * in.stride[1] + columns.first * in.stride[2];
  for (int i = rows.first; i <= rows.last; ++i, row += in.stride[1]) {
    float across[kColours] = {};
    const uint8_t* p = row;
    for (int j = columns.first; j <= columns.last; ++j, p += in.stride[2]) {
      const float weight = columns.weight(j);
#pragma unroll
      for (int c = 0; c < kColours; ++c) across[c] += weight * p[c * in.stride[3]];
    }
    const double weight = rows.weight(i);
#pragma unroll
    for (int c = 0; c < kColours; ++c) sum[c] += weight * across[c];
  }
#pragma unroll
  for (int c = 0; c < kColours; ++c) {
    double v = sum[c] * share;
    if (in.pixels == Pixels::unit) v = fmax(v * (1.0 / 255), 1.0 / 255);
    y[c] = in.pixels == Pixels::rounded ? rintf(static_cast<float>(v)) : static_cast<float>(v);
  }
}

__device__ __forceinline__ bool same_box(const double* a, const double* b) {
  return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

__global__ void __launch_bounds__(kThreads) resize_frames(Inputs in) {
  __shared__ Shared s;
  const int64_t tiles = in.tiles(), stretches = (in.count + kFrames - 1) / kFrames;
  const int strips = in.strips, row = threadIdx.x / kSide, column = threadIdx.x % kSide;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t block = blockIdx.x; block < stretches * tiles; block += gridDim.x) {
    const int64_t tile = block % tiles, first = block / tiles * kFrames, last = min(first + kFrames, in.count);
    const int part = static_cast<int>(tile % (strips * strips)), cell = static_cast<int>(tile / (strips * strips));
    const Axis down = in.down();
    const Strip rows(down, cell / in.small_size, part / strips, strips), columns(down, cell % in.small_size, part % strips, strips);
    const int i = rows.begin + row, j = columns.begin + column;
    const bool inside = i < rows.end && j < columns.end, own = inside && i < rows.shared && j < columns.shared;
    __syncthreads();  // the last block's readers are done
    s.own[threadIdx.x] = own;
    s.weight[threadIdx.x] = inside ? rows.cell.weight(i) * columns.cell.weight(j) : 0.0f;
    float x[kColours] = {}, next[kColours] = {};
    for (int64_t t = first; t < last; ++t) {
      const double* box = in.boxes + 4 * t;
      if (t == first || !same_box(box, box - 4)) {
        const Axis y_axis(box[1], box[3], in.big_size, static_cast<int>(in.height));
        const Axis x_axis(box[0], box[2], in.big_size, static_cast<int>(in.width));
        if (threadIdx.x < kSide)
          s.rows[threadIdx.x] = y_axis.span(min(rows.begin + static_cast<int>(threadIdx.x), in.big_size - 1));
        else if (threadIdx.x < 2 * kSide)
          s.columns[column] = x_axis.span(min(columns.begin + column, in.big_size - 1));
        s.share = 1 / (y_axis.total() * x_axis.total());
        __syncthreads();
        if (inside) resize(in, t, s.rows[row], s.columns[column], s.share, x);
      } else {
#pragma unroll
        for (int c = 0; c < kColours; ++c) x[c] = next[c];
      }
      const bool pair = t + 1 < in.count;
      if (inside && pair) resize(in, t + 1, s.rows[row], s.columns[column], s.share, next);
#pragma unroll
      for (int c = 0; c < kColours; ++c) {
        s.before[threadIdx.x][c] = x[c];
        s.difference[threadIdx.x][c] = inside && pair ? (next[c] - x[c]) / (next[c] + x[c] + in.eps) : 0.0f;
        if (own && t % in.every == 0)
          in.big[((t / in.every * kColours + c) * in.big_size + i) * in.big_size + j] = x[c];
      }
      __syncthreads();
      if (warp < kPartial) {  // a warp a sum
        double sum = 0;
        for (int k = lane; k < kThreads; k += 32) {
          const float* values = warp < 2 ? s.before[k] : s.difference[k];
          if (warp >= 4) {
            sum += static_cast<double>(s.weight[k]) * values[warp - 4];
          } else if (s.own[k]) {
            for (int c = 0; c < kColours; ++c) {
              const double v = values[c];
              sum += warp % 2 == 0 ? v : v * v;
            }
          }
        }
        sum = warp_sum(sum);
        if (lane == 0) in.partial[(t * tiles + tile) * kPartial + warp] = sum;
      }
      __syncthreads();
    }
  }
}

// A block a frame: four warps join the tiles' sums, all threads the parts of the cells.
__global__ void __launch_bounds__(kThreads) join_tiles(Inputs in) {
  const int64_t tiles = in.tiles(), cells = in.cells(), parts = in.strips * in.strips;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Axis down = in.down();
  const double area = down.total() * down.total();
  for (int64_t t = blockIdx.x; t < in.count; t += gridDim.x) {
    const double* partial = in.partial + t * tiles * kPartial;
    if (warp < 4) {
      double sum = 0;
      for (int64_t tile = lane; tile < tiles; tile += 32) sum += partial[tile * kPartial + warp];
      sum = warp_sum(sum);
      if (lane == 0) in.sums[t * 4 + warp] = sum;
    }
    if (t + 1 == in.count) continue;
    for (int64_t k = threadIdx.x; k < cells * kColours; k += kThreads) {
      const int64_t colour = k / cells, cell = k % cells;
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += partial[(cell * parts + part) * kPartial + 4 + colour];
      in.small[t * kColours * cells + k] = static_cast<float>(sum / area);
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> bigsmall_inputs(const Tensor& frames, const Tensor& boxes, int64_t big_size,
                                                   int64_t small_size, int64_t every, std::string pixels, double eps) {
  STD_TORCH_CHECK(frames.dim() == 4 && frames.size(3) == kColours && frames.size(0) >= 1 && frames.size(1) >= 1 &&
                      frames.size(2) >= 1 && dtype_of(frames) == aoti_torch_dtype_uint8(),
                  "bigsmall_inputs needs frames of (T, H, W, 3), T >= 1, uint8");
  const int64_t n = frames.size(0);
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(0) == n && boxes.size(1) == 4 && dtype_of(boxes) == aoti_torch_dtype_float64(),
                  "bigsmall_inputs needs boxes of (T, 4), float64");
  constexpr int64_t kMost = 1 << 15;  // sides whose pixels 32 bits count
  STD_TORCH_CHECK(big_size >= 1 && big_size <= kMost && small_size >= 1 && small_size <= big_size && every >= 1,
                  "bigsmall_inputs needs 1 <= small_size <= big_size <= ", kMost, " and every >= 1");
  STD_TORCH_CHECK(frames.size(1) <= INT32_MAX && frames.size(2) <= INT32_MAX, "bigsmall_inputs needs sides below 2^31");
  STD_TORCH_CHECK(pixels == "exact" || pixels == "unit" || pixels == "rounded",
                  "bigsmall_inputs needs pixels exact, unit or rounded, got ", pixels);
  const Tensor box = torch::stable::contiguous(boxes);
  const int64_t reach = big_size / small_size + 2;  // targets along a cell at most
  const int64_t strips = big_size % small_size == 0 ? ceil_div(big_size / small_size, kSide) : ceil_div(reach, kSide);
  const int64_t tiles = small_size * small_size * strips * strips;
  Tensor big = empty_on(frames, {ceil_div(n, every), kColours, big_size, big_size}, aoti_torch_dtype_float32());
  Tensor small = empty_on(frames, {n - 1, kColours, small_size, small_size}, aoti_torch_dtype_float32());
  Tensor sums = empty_on(frames, {n, 4}, aoti_torch_dtype_float64());
  const Tensor partial = empty_on(frames, {n, tiles, kPartial}, aoti_torch_dtype_float64());
  const Inputs in{static_cast<const uint8_t*>(frames.const_data_ptr()),
                  n,
                  frames.size(1),
                  frames.size(2),
                  {frames.stride(0), frames.stride(1), frames.stride(2), frames.stride(3)},
                  static_cast<const double*>(box.const_data_ptr()),
                  static_cast<int>(big_size),
                  static_cast<int>(small_size),
                  static_cast<int>(strips),
                  every,
                  pixels == "unit" ? Pixels::unit : pixels == "rounded" ? Pixels::rounded : Pixels::exact,
                  static_cast<float>(eps),
                  static_cast<float*>(big.mutable_data_ptr()),
                  static_cast<float*>(small.mutable_data_ptr()),
                  static_cast<double*>(sums.mutable_data_ptr()),
                  static_cast<double*>(partial.mutable_data_ptr())};
  const Queue queue(frames);
  queue.launch(resize_frames, tiles * ceil_div(n, kFrames), kThreads, in);
  queue.launch(join_tiles, n, kThreads, in);
  return {big, small, sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels_impl, BK_KEY, m) { m.impl("bigsmall_inputs_cuda", TORCH_BOX(&bigsmall_inputs)); }

}  // namespace bk
