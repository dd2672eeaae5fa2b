// One block of the Big branch: conv3x3-ReLU-conv3x3-ReLU-average pool, depth-first; the packing of its weights.
#include "double_conv2d_pool.h"

#include "isa.h"
#include "tensor.h"

#include <cstdlib>
#include <memory>
#include <utility>

#define BK_KERNEL "double_conv2d_pool_kernel.h"
#include "each_isa.h"

namespace bk {
namespace {

constexpr int64_t kSerialWork = 1000000;  // multiplications below which a second thread costs more than it brings

int64_t taps(bool first, int64_t in) { return first && in <= kDirect ? 9 : 36; }
int64_t packed_size(const Tensor& w, bool first) { return taps(first, w.size(1)) * round_up(w.size(0), 16) * w.size(1); }

// (out, in, 3, 3) -> [ceil(out / 16)][3][3][in][16], zero beyond `out`.
void pack_direct(const float* weight, int64_t out, int64_t in, float* packed) {
  for (int64_t i = 0; i < round_up(out, 16) * 9 * in; ++i) {
    const int64_t o = i / (144 * in) * 16 + i % 16, k = i / (16 * in) % 9, c = i / 16 % in;
    packed[i] = o < out ? weight[(o * in + c) * 9 + k] : 0.f;
  }
}

bool is_3x3(const Tensor& w) { return w.dim() == 4 && w.size(2) == 3 && w.size(3) == 3; }

Tensor pack_double_conv2d_pool(const Tensor& weight1, const Tensor& weight2) {
  STD_TORCH_CHECK(is_3x3(weight1) && is_3x3(weight2), "weight1 and weight2 must be (Cout, Cin, 3, 3)");
  const Tensor w1 = float_contiguous(weight1), w2 = float_contiguous(weight2);
  Tensor packed = empty1(packed_size(w1, true) + packed_size(w2, false), aoti_torch_dtype_float32());
  float *to1 = packed.mutable_data_ptr<float>(), *to2 = to1 + packed_size(w1, true);
  const auto pack = [](const Tensor& w, float* to, int64_t begin, int64_t end) {
    if (begin < end) BK_DISPATCH(pack_winograd, w.const_data_ptr<float>(), w.size(0), w.size(1), to, begin, end);
  };
  const bool direct = w1.size(1) <= kDirect;
  if (direct) pack_direct(w1.const_data_ptr<float>(), w1.size(0), w1.size(1), to1);
  const int64_t first = direct ? 0 : round_up(w1.size(0), 16) / 16 * w1.size(1);
  const int64_t all = first + round_up(w2.size(0), 16) / 16 * w2.size(1);
  torch::stable::parallel_for(0, all, 128, [&](int64_t begin, int64_t end) {
    pack(w1, to1, begin, std::min(end, first));
    pack(w2, to2, std::max(begin, first) - first, end - first);
  });
  return packed;
}

// float64, for which Winograd saves little: aten's own.
Tensor composed(const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1, const Tensor& w2,
                const std::optional<Tensor>& b2, int64_t pool) {
  using Ints = std::vector<int64_t>;
  const auto conv_relu = [](const Tensor& x, const Tensor& w, const std::optional<Tensor>& b) {
    const Ints one{1, 1}, zero{0, 0};
    return aten("aten::relu", "", aten("aten::convolution", "", x, w, b, one, one, one, false, zero, int64_t{1}));
  };
  const Tensor y = aten("aten::avg_pool2d", "", conv_relu(conv_relu(x, w1, b1), w2, b2), Ints{pool, pool}, Ints{},
                        Ints{0, 0}, false, true, std::optional<int64_t>{});
  using torch::headeronly::MemoryFormat;
  return torch::stable::contiguous(y, wants_nhwc(x) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// A thread's workspace: kept, because mapping fresh pages costs more than a block's arithmetic on them.
float* workspace(int64_t floats) {
  static thread_local std::unique_ptr<float, decltype(&std::free)> space(nullptr, &std::free);
  static thread_local int64_t size = 0;
  if (size < floats) {
    space.reset(static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64)));
    STD_TORCH_CHECK(space != nullptr, "double_conv2d_pool: no memory for a workspace of ", floats, " floats");
    size = floats;
  }
  return space.get();
}

Tensor double_conv2d_pool(const Tensor& x, const Tensor& weight1, const std::optional<Tensor>& bias1,
                          const Tensor& weight2, const std::optional<Tensor>& bias2, int64_t pool,
                          const std::optional<Tensor>& packed) {
  STD_TORCH_CHECK(x.dim() == 4 && is_3x3(weight1) && is_3x3(weight2) && weight1.size(1) == x.size(1) &&
                      (!bias1.has_value() || bias1->numel() == weight1.size(0)) &&
                      (!bias2.has_value() || bias2->numel() == weight2.size(0)) &&
                      weight2.size(1) == weight1.size(0) && x.size(1) > 0 && pool > 0,
                  "double_conv2d_pool needs x (B, C, H, W), weight1 (M, C, 3, 3), weight2 (N, M, 3, 3), C and pool >= 1");
  if (dtype_of(x) == aoti_torch_dtype_float64()) return composed(x, weight1, bias1, weight2, bias2, pool);
  const Size4 size = sizes4(x), out_size{size[0], weight2.size(0), size[2] / pool, size[3] / pool};
  const bool nhwc = wants_nhwc(x);
  const Tensor in = is_float(x) ? x : torch::stable::to(x, ScalarType::Float);
  Tensor y = empty4(out_size, aoti_torch_dtype_float32(), nhwc);
  if (y.numel() > 0) {
    const Tensor filters = packed.has_value() ? *packed : pack_double_conv2d_pool(weight1, weight2);
    const int64_t first_size = packed_size(weight1, true);
    STD_TORCH_CHECK(is_float(filters) && filters.is_contiguous() &&
                        filters.numel() == first_size + packed_size(weight2, false),
                    "packed must be pack_double_conv2d_pool(weight1, weight2) of these weights");
    const std::vector<float> b1 = padded_bias(bias1, weight1.size(0)), b2 = padded_bias(bias2, weight2.size(0));
    const float* filter = filters.const_data_ptr<float>();
    const DoubleConv2dPool block{in.const_data_ptr<float>(), y.mutable_data_ptr<float>(), strides4(in), strides4(y),
                                 size[1], weight1.size(0), out_size[1], size[2], size[3], pool,
                                 filter, filter + first_size, b1.data(), b2.data()};
    const int64_t row = std::max<int64_t>(1, size[3] * pool * 9 * block.mid * (block.in + block.out));
    const int64_t floats = BK_DISPATCH(block_workspace, block);
    torch::stable::parallel_for(0, out_size[0] * out_size[2], std::max<int64_t>(1, kSerialWork / row),
                                [&](int64_t begin, int64_t end) {
                                  BK_DISPATCH(block_rows, block, workspace(floats), begin, end);
                                });
  }
  if (is_float(x)) return y;
  return torch::stable::to(y, dtype_of(x) == aoti_torch_dtype_float16() ? ScalarType::Half : ScalarType::BFloat16);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("double_conv2d_pool", TORCH_BOX(&double_conv2d_pool));
  m.impl("pack_double_conv2d_pool", TORCH_BOX(&pack_double_conv2d_pool));
}

}  // namespace bk
