// One block of the Big branch: conv3x3-ReLU-conv3x3-ReLU-average pool, depth-first, and back; the packing of its weights.
#include "double_conv2d_pool.h"

#include "intrinsics.h"
#include "isa.h"
#include "memory.h"
#include "share.h"
#include "tensor.h"
#include "tiles.h"

#include <utility>

#define BK_KERNEL "double_conv2d_pool_kernel.h"
#define BK_AMX_KERNEL "double_conv2d_pool_amx.h"
#include "each_isa.h"

namespace bk {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

constexpr int64_t kSerialWork = 1000000;  // multiplications below which a second thread costs more than it brings
constexpr int64_t kBand = 24;             // rows of an image that are worth a thread's time by themselves

int64_t winograd_size(const Tensor& w) { return kTileParts * round_up(w.size(0), 16) * w.size(1); }

// Winograd's filters of the adjoint of a convolution: its own turned round, inputs and outputs exchanged.
std::vector<float> packed_adjoint(const Tensor& weight) {
  const int64_t out = weight.size(0), in = weight.size(1);
  const float* w = weight.const_data_ptr<float>();
  std::vector<float> turned(in * out * 9), packed(kTileParts * round_up(in, 16) * out);
  for (int64_t i = 0; i < in * out * 9; ++i) turned[i] = w[(i / 9 % out * in + i / (9 * out)) * 9 + 8 - i % 9];
  torch::stable::parallel_for(0, round_up(in, 16) / 16 * out, 128, [&](int64_t begin, int64_t end) {
    BK_DISPATCH(pack_winograd, turned.data(), in, out, packed.data(), begin, end);
  });
  return packed;
}

// Both filters in the Winograd domain, one after the other.
int64_t winograd_size(const Tensor& w1, const Tensor& w2) { return winograd_size(w1) + winograd_size(w2); }
void pack_for_winograd(const Tensor& w1, const Tensor& w2, float* to1) {
  float* to2 = to1 + winograd_size(w1);
  const auto pack = [](const Tensor& w, float* to, int64_t begin, int64_t end) {
    if (begin < end) BK_DISPATCH(pack_winograd, w.const_data_ptr<float>(), w.size(0), w.size(1), to, begin, end);
  };
  const int64_t first = round_up(w1.size(0), 16) / 16 * w1.size(1);
  const int64_t all = first + round_up(w2.size(0), 16) / 16 * w2.size(1);
  torch::stable::parallel_for(0, all, 128, [&](int64_t begin, int64_t end) {
    pack(w1, to1, begin, std::min(end, first));
    pack(w2, to2, std::max(begin, first) - first, end - first);
  });
}

// Both filters as tiles, one after the other.
int64_t both_tiles_size(const Tensor& w1, const Tensor& w2) { return tiles_size(w1, is_few(w1.size(1))) + tiles_size(w2, false); }
void pack_both_as_tiles(const Tensor& w1, const Tensor& w2, float* packed) {
  pack_as_tiles(w1, is_few(w1.size(1)), packed);
  pack_as_tiles(w2, false, packed + tiles_size(w1, is_few(w1.size(1))));
}

// Both filters in the Winograd domain, and both as tiles: the same for any instruction set.
Tensor pack_double_conv2d_pool(const Tensor& weight1, const Tensor& weight2) {
  STD_TORCH_CHECK(is_3x3(weight1) && is_3x3(weight2), "weight1 and weight2 must be (Cout, Cin, 3, 3)");
  const Tensor w1 = float_contiguous(weight1), w2 = float_contiguous(weight2);
  const int64_t winograd = winograd_size(w1, w2);
  Tensor packed = empty1(winograd + both_tiles_size(w1, w2), aoti_torch_dtype_float32());
  pack_for_winograd(w1, w2, packed.mutable_data_ptr<float>());
  pack_both_as_tiles(w1, w2, packed.mutable_data_ptr<float>() + winograd);
  return packed;
}

// float64, for which Winograd saves little: aten's own.
using Ints = std::vector<int64_t>;
Tensor conv_relu(const Tensor& x, const Tensor& w, const std::optional<Tensor>& b) {
  const Ints one{1, 1}, zero{0, 0};
  return aten("aten::relu", "", aten("aten::convolution", "", x, w, b, one, one, one, false, zero, int64_t{1}));
}
Tensor like(const Tensor& y, const Tensor& x) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::contiguous(y, wants_nhwc(x) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}
Tensor composed(const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1, const Tensor& w2,
                const std::optional<Tensor>& b2, int64_t pool) {
  const Tensor y = conv_relu(conv_relu(x, w1, b1), w2, b2);
  return like(aten("aten::avg_pool2d", "", y, Ints{pool, pool}, Ints{}, Ints{0, 0}, false, true, std::optional<int64_t>{}), x);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;  // of x, weight1, bias1, weight2, bias2
Gradients composed_backward(const Tensor& grad, const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1,
                            const Tensor& w2, const std::optional<Tensor>& b2, int64_t pool, bool first, bool need_x) {
  const Tensor mid = conv_relu(x, w1, b1), y = conv_relu(mid, w2, b2), none = empty1(0, dtype_of(x));
  const auto back = [](const Tensor& grad, const Tensor& y, const Tensor& x, const Tensor& w, bool need_x) {
    const Ints one{1, 1}, zero{0, 0};
    const bool asked[] = {need_x, true, true};
    const Tensor before = aten("aten::mul", "Tensor", grad, aten("aten::sign", "", y));  // y >= 0: where ReLU passes it on
    std::array<StableIValue, 11> stack{from(before), from(x), from(w), from(std::optional<Ints>(Ints{w.size(0)})), from(one),
                                       from(one), from(one), from(false), from(zero), from(int64_t{1}),
                                       from(torch::headeronly::HeaderOnlyArrayRef<bool>(asked, 3))};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::convolution_backward", "", stack.data(), TORCH_ABI_VERSION));
    return std::array<Tensor, 3>{to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
  };
  const Tensor pooled = aten("aten::avg_pool2d_backward", "", grad, y, Ints{pool, pool}, Ints{}, Ints{0, 0}, false, true,
                             std::optional<int64_t>{});
  const auto [mid_grad, w2_grad, b2_grad] = back(pooled, y, mid, w2, first);
  if (!first) return {none, none, none, w2_grad, b2_grad};
  const auto [x_grad, w1_grad, b1_grad] = back(mid_grad, mid, x, w1, need_x);
  return {need_x ? like(x_grad, x) : none, w1_grad, b1_grad, w2_grad, b2_grad};
}

// --- forward ----------------------------------------------------------------------------------------------------------

// Rows [begin, end) of all images' pooled rows, shared among the threads. Few images are divided into bands of rows, which
// repeat some of their neighbours': two for every thread if they are high enough, else one.
template <class Value, class F>
void share_rows(const Block<Value>& block, int64_t images, const F& f) {
  const int64_t height = block.height / block.pool, width = block.width / block.pool;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t wanted = block.height * images >= 2 * threads * kBand ? 2 * threads : threads;
  const int64_t bands = std::min((wanted + images - 1) / images, height);
  const int64_t work = height * width * block.pool * block.pool * 9 * block.mid * (block.in + block.out) / bands;
  const auto row = [&](int64_t band) { return band / bands * height + height * (band % bands) / bands; };
  share(images * bands, std::max<int64_t>(1, kSerialWork / work),
        [&](int64_t begin, int64_t end) { f(row(begin), row(end)); });
}

template <class Value>
Block<Value> block_of(const Tensor& x, const Tensor& y, int64_t mid, int64_t pool, const std::vector<float>& bias1,
                      const std::vector<float>& bias2) {
  Block<Value> block{};
  block.x = static_cast<const Value*>(x.const_data_ptr());
  block.y = static_cast<Value*>(y.mutable_data_ptr());
  block.x_stride = strides4(x), block.y_stride = strides4(y);
  block.in = x.size(1), block.mid = mid, block.out = y.size(1), block.height = x.size(2), block.width = x.size(3);
  block.pool = pool;
  block.bias1 = bias1.data(), block.bias2 = bias2.data();
  return block;
}

Tensor by_winograd(const Tensor& x, const Tensor& weight1, const std::optional<Tensor>& bias1, const Tensor& weight2,
                   const std::optional<Tensor>& bias2, int64_t pool, const std::optional<Tensor>& packed, bool nhwc) {
  Tensor y = empty4({x.size(0), weight2.size(0), x.size(2) / pool, x.size(3) / pool}, dtype_of(x), nhwc);
  if (y.numel() == 0) return y;
  Tensor filters = packed.has_value() ? *packed : empty1(winograd_size(weight1, weight2), dtype_of(x));
  if (!packed.has_value())
    pack_for_winograd(float_contiguous(weight1), float_contiguous(weight2), filters.mutable_data_ptr<float>());
  const std::vector<float> b1 = padded_bias(bias1, weight1.size(0)), b2 = padded_bias(bias2, weight2.size(0));
  DoubleConv2dPool block = block_of<float>(x, y, weight1.size(0), pool, b1, b2);
  block.filter1 = filters.const_data_ptr<float>();
  block.filter2 = block.filter1 + winograd_size(weight1);
  const int64_t space = BK_DISPATCH(block_workspace, block);
  share_rows(block, x.size(0), [&](int64_t begin, int64_t end) {
    BK_DISPATCH(block_rows, block, floats(space).get(), begin, end);
  });
  return y;
}

#ifdef BK_AMX
Tensor in_tiles(const Tensor& x, const Tensor& weight1, const std::optional<Tensor>& bias1, const Tensor& weight2,
                const std::optional<Tensor>& bias2, int64_t pool, const std::optional<Tensor>& packed) {
  Tensor y = empty4({x.size(0), weight2.size(0), x.size(2) / pool, x.size(3) / pool}, dtype_of(x), wants_nhwc(x));
  if (y.numel() == 0) return y;
  Tensor filters = packed.has_value() ? *packed : empty1(both_tiles_size(weight1, weight2), aoti_torch_dtype_float32());
  const float* tiles = filters.const_data_ptr<float>();
  if (packed.has_value()) {
    tiles += winograd_size(weight1, weight2);
  } else {
    pack_both_as_tiles(float_contiguous(weight1), float_contiguous(weight2), filters.mutable_data_ptr<float>());
  }
  const std::vector<float> b1 = padded_bias(bias1, weight1.size(0)), b2 = padded_bias(bias2, weight2.size(0));
  HalfBlock block = block_of<uint16_t>(x, y, weight1.size(0), pool, b1, b2);
  block.filter1 = reinterpret_cast<const uint16_t*>(tiles);
  block.filter2 = block.filter1 + 2 * tiles_size(weight1, is_few(weight1.size(1)));
  const int64_t space = amx::block_workspace(block);
  share_rows(block, x.size(0), [&](int64_t begin, int64_t end) {
    amx::block_rows(block, floats(space).get(), begin, end);
  });
  return y;
}
#endif

Tensor double_conv2d_pool(const Tensor& x, const Tensor& weight1, const std::optional<Tensor>& bias1,
                          const Tensor& weight2, const std::optional<Tensor>& bias2, int64_t pool,
                          const std::optional<Tensor>& packed) {
  STD_TORCH_CHECK(x.dim() == 4 && is_3x3(weight1) && is_3x3(weight2) && weight1.size(1) == x.size(1) &&
                      (!bias1.has_value() || bias1->numel() == weight1.size(0)) &&
                      (!bias2.has_value() || bias2->numel() == weight2.size(0)) &&
                      weight2.size(1) == weight1.size(0) && x.size(1) > 0 && pool > 0,
                  "double_conv2d_pool needs x (B, C, H, W), weight1 (M, C, 3, 3), weight2 (N, M, 3, 3), C and pool >= 1");
  if (dtype_of(x) == aoti_torch_dtype_float64()) return composed(x, weight1, bias1, weight2, bias2, pool);
  STD_TORCH_CHECK(!packed.has_value() || (is_float(*packed) && packed->is_contiguous() &&
                                          packed->numel() == winograd_size(weight1, weight2) + both_tiles_size(weight1, weight2)),
                  "packed must be pack_double_conv2d_pool(weight1, weight2) of these weights");
  const bool half = is_half(x), bfloat16 = dtype_of(x) == aoti_torch_dtype_bfloat16();
#ifdef BK_AMX
  if (bfloat16 && isa() == Isa::amx) return in_tiles(x, weight1, bias1, weight2, bias2, pool, packed);
#endif
  STD_TORCH_CHECK(half || is_float(x), "double_conv2d_pool needs x of float32, float64, float16 or bfloat16");
  const Tensor in = half ? torch::stable::to(x, ScalarType::Float) : x;  // whose layout may be another
  const Tensor y = by_winograd(in, weight1, bias1, weight2, bias2, pool, packed, wants_nhwc(x));
  return half ? torch::stable::to(y, bfloat16 ? ScalarType::BFloat16 : ScalarType::Half) : y;
}

constexpr int64_t kParts = 64;  // in which the parameters' gradients are summed up, whatever the number of threads

// The gradients that `mask` does not ask for are empty.
Gradients double_conv2d_pool_backward(const Tensor& grad, const Tensor& x, const Tensor& weight1,
                                      const std::optional<Tensor>& bias1, const Tensor& weight2,
                                      const std::optional<Tensor>& bias2, int64_t pool, const std::vector<bool>& mask) {
  STD_TORCH_CHECK(x.dim() == 4 && grad.dim() == 4 && is_3x3(weight1) && is_3x3(weight2) && weight1.size(1) == x.size(1) &&
                      weight2.size(1) == weight1.size(0) && x.size(1) > 0 && pool > 0 && grad.size(0) == x.size(0) &&
                      grad.size(1) == weight2.size(0) && grad.size(2) == x.size(2) / pool &&
                      grad.size(3) == x.size(3) / pool && mask.size() == 5,
                  "double_conv2d_pool_backward needs the arguments of double_conv2d_pool and a gradient of its result");
  const bool first = mask[0] || mask[1] || mask[2];
  const auto asked = [&](const Gradients& g) {
    const auto kept = [&](const Tensor& t, int i) { return mask[i] ? t : empty1(0, dtype_of(x)); };
    return Gradients{kept(std::get<0>(g), 0), kept(std::get<1>(g), 1), kept(std::get<2>(g), 2), kept(std::get<3>(g), 3),
                     kept(std::get<4>(g), 4)};
  };
  const bool half = is_half(x);
  if (!(is_float(x) || half) || (half && isa() == Isa::amx))  // there aten's own win
    return asked(composed_backward(grad, x, weight1, bias1, weight2, bias2, pool, first, mask[0]));

  const auto in_float = [](const Tensor& t) { return is_float(t) ? t : torch::stable::to(t, ScalarType::Float); };
  const auto as_given = [&](const Tensor& t) { return half ? torch::stable::to(t, x.scalar_type()) : t; };
  const Tensor g = in_float(grad), in = in_float(x), w1 = float_contiguous(weight1), w2 = float_contiguous(weight2);
  const Size4 size = sizes4(x);
  const int64_t mid = w1.size(0), out = w2.size(0), kind = aoti_torch_dtype_float32();
  const Tensor x_grad = mask[0] ? empty4(size, kind, wants_nhwc(x)) : empty1(0, kind);
  const Tensor w1_grad = empty4({mid, size[1], 3, 3}, kind, false), b1_grad = empty1(mid, kind);
  const Tensor w2_grad = empty4({out, mid, 3, 3}, kind, false), b2_grad = empty1(out, kind);
  if (in.numel() == 0) {
    for (const Tensor& t : {w1_grad, b1_grad, w2_grad, b2_grad}) std::memset(t.mutable_data_ptr(), 0, t.numel() * sizeof(float));
  } else {
    const Floats filters = floats(winograd_size(w1, w2));
    const float* filter = filters.get();
    pack_for_winograd(w1, w2, filters.get());
    const std::vector<float> turned1 = mask[0] ? packed_adjoint(w1) : std::vector<float>{};
    const std::vector<float> turned2 = first ? packed_adjoint(w2) : std::vector<float>{};
    const std::vector<float> b1 = padded_bias(bias1, mid), b2 = padded_bias(bias2, out);
    // Bands of an image repeat rows of their neighbours (10 to 20 % more work): only as many as a few threads can share.
    const int64_t most = size[2] >= 96 ? 4 : size[2] >= 24 ? 2 : 1, bands = std::min((size[0] + 3) / size[0], most);
    const int64_t parts = std::min(size[0] * bands, kParts);
    const DoubleConv2dPoolBackward block{g.const_data_ptr<float>(), in.const_data_ptr<float>(),
                                         mask[0] ? x_grad.mutable_data_ptr<float>() : nullptr, strides4(g), strides4(in),
                                         mask[0] ? strides4(x_grad) : Size4{}, size[1], mid, out, size[2], size[3], pool,
                                         bands, first, filter, filter + winograd_size(w1), turned1.data(),
                                         turned2.data(), b1.data(), b2.data()};
    const int64_t space = BK_DISPATCH(block_backward_workspace, block);
    const Tensor all[] = {w1_grad, b1_grad, w2_grad, b2_grad};
    int64_t values = 0;
    for (const Tensor& t : all) values += t.numel();
    const Tensor sums = empty1(parts * values, kind);
    float* partial = sums.mutable_data_ptr<float>();
    share(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        BK_DISPATCH(block_gradients, block, floats(space).get(), size[0] * bands * p / parts,
                    size[0] * bands * (p + 1) / parts, partial + p * values);
      }
    });
    for (const Tensor& t : all) {
      float* total = t.mutable_data_ptr<float>();
      torch::stable::parallel_for(0, t.numel(), 4096, [&](int64_t begin, int64_t end) {
        std::copy(partial + begin, partial + end, total + begin);
        for (int64_t p = 1; p < parts; ++p) {
          for (int64_t i = begin; i < end; ++i) total[i] += partial[p * values + i];
        }
      });
      partial += t.numel();
    }
  }
  return asked({as_given(x_grad), as_given(w1_grad), as_given(b1_grad), as_given(w2_grad), as_given(b2_grad)});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("double_conv2d_pool", TORCH_BOX(&double_conv2d_pool));
  m.impl("double_conv2d_pool_backward", TORCH_BOX(&double_conv2d_pool_backward));
  m.impl("pack_double_conv2d_pool", TORCH_BOX(&pack_double_conv2d_pool));
}

}  // namespace bk
