// Temporal shift + convolution + bias + activation, one layer or a stack of 3x3 layers; the packing of its weights.
#include "intrinsics.h"
#include "isa.h"
#include "tiles.h"
#include "wtsm_conv2d_layers.h"

#define BK_KERNEL "wtsm_conv2d_kernel.h"
#define BK_AMX_KERNEL "wtsm_conv2d_amx.h"
#include "each_isa.h"

namespace bk {

void conv_row(const ConvRow& row) { BK_DISPATCH(conv_row, row); }
void conv_tiles(const ConvTiles& tiles) { BK_DISPATCH(conv_tiles, tiles); }
void tile_inputs(const TileInputs& tiles) { BK_DISPATCH(tile_inputs, tiles); }
void pack_filter(const FilterLayout& layout, const float* weight, float* packed, int64_t begin, int64_t end) {
  BK_DISPATCH(pack_filter, layout, weight, packed, begin, end);
}
void planes_to_pixels(const PlanesAndPixels& frame, const float* planes, float* pixels) {
  BK_DISPATCH(planes_to_pixels, frame, planes, pixels);
}
void pixels_to_planes(const PlanesAndPixels& frame, const float* pixels, float* planes) {
  BK_DISPATCH(pixels_to_planes, frame, pixels, planes);
}

Activation activation(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  STD_TORCH_CHECK(name == "elu", "activation must be none, relu, tanh or elu, got ", name);
  return Activation::elu;
}

namespace {

Tensor activated(const Tensor& y, Activation a) {
  switch (a) {
    case Activation::relu: return aten("aten::relu", "", y);
    case Activation::tanh: return aten("aten::tanh", "", y);
    case Activation::elu: {  // max(y, 0) - -expm1(min(y, 0)): aten::elu takes Scalars, which the stable ABI cannot pass
      const Tensor low = aten("aten::neg", "", aten("aten::relu", "", aten("aten::neg", "", y)));
      const Tensor lower = aten("aten::neg", "", aten("aten::expm1", "", low));
      return torch::stable::subtract(aten("aten::relu", "", y), lower);
    }
    default: return y;
  }
}

Tensor with_layout(const Tensor& y, bool nhwc) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::contiguous(y, nhwc ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// --- packed weights ---------------------------------------------------------------------------------------------------

int64_t floats_of(const std::vector<Tensor>& weights) {
  int64_t size = 0;
  for (const Tensor& w : weights) size += Filter(w).packed_size();
  return size;
}
int64_t tiles_size_of(const std::vector<Tensor>& weights) {
  int64_t size = 0;
  for (const Tensor& w : weights) size += is_3x3(w) ? tiles_size(w, is_few(w.size(1))) : 0;
  return size;
}

void pack_floats(const std::vector<Tensor>& weights, float* to) {
  for (const Tensor& w : weights) {
    const Filter f(w);
    pack(f, false, float_contiguous(w).const_data_ptr<float>(), to);
    to += f.packed_size();
  }
}
void pack_tiles(const std::vector<Tensor>& weights, float* to) {
  for (const Tensor& w : weights) {
    if (!is_3x3(w)) continue;
    pack_as_tiles(float_contiguous(w), is_few(w.size(1)), to);
    to += tiles_size(w, is_few(w.size(1)));
  }
}

// All filters for the float kernels, then all 3x3 ones as tiles.
Tensor pack_wtsm_conv2d_stack(const std::vector<Tensor>& weights) {
  for (const Tensor& w : weights) STD_TORCH_CHECK(w.dim() == 4, "weights must be (Cout, Cin, kh, kw)");
  const int64_t floats = floats_of(weights);
  Tensor packed = empty1(floats + tiles_size_of(weights), aoti_torch_dtype_float32());
  pack_floats(weights, packed.mutable_data_ptr<float>());
  pack_tiles(weights, packed.mutable_data_ptr<float>() + floats);
  return packed;
}

Tensor pack_wtsm_conv2d(const Tensor& weight) { return pack_wtsm_conv2d_stack({weight}); }

void check_packed(const std::optional<Tensor>& packed, const std::vector<Tensor>& weights) {
  const int64_t size = floats_of(weights) + tiles_size_of(weights);
  STD_TORCH_CHECK(!packed.has_value() || (packed->is_cpu() && is_float(*packed) && packed->numel() == size &&
                                          packed->is_contiguous()),
                  "packed must be this weight's own, ", size, " contiguous float32 values");
}

// --- any filter, directly ---------------------------------------------------------------------------------------------

// What a call reads and writes.
struct Call {
  View image;
  Size4 size;  // of x
  int64_t n_segment, fold_div;
  bool wrap;
  Activation activation;
  float* out;
  Size4 out_size, out_stride;

  bool nhwc() const { return out_stride[1] == 1; }
  Shift shift(int64_t channels) const { return {n_segment, channels, channels / fold_div, wrap, 1}; }
  float* out_row(int64_t frame, int64_t y) const { return out + frame * out_stride[0] + y * out_stride[2]; }
};

// Row `y` of channels [begin, end) of one image -> (width, pixel_stride) with channels fastest, from channel `begin` on.
void read_row(const View& image, int64_t frame, int64_t y, int64_t begin, int64_t end, int64_t width, float* out,
              int64_t pixel_stride) {
  const float* row = image.data + frame * image.stride[0] + y * image.stride[2];
  if (image.stride[1] == 1) {
    for (int64_t j = 0; j < width; ++j) std::copy_n(row + j * image.stride[3] + begin, end - begin, out + j * pixel_stride + begin);
    return;
  }
  for (int64_t j = 0; j < width; ++j)
    for (int64_t c = begin; c < end; ++c) out[j * pixel_stride + c] = row[c * image.stride[1] + j * image.stride[3]];
}

// (width, pixel_stride), channels fastest -> a piece of a row of a dense output.
void write_row(const float* in, int64_t pixel_stride, float* row, const Size4& stride, int64_t channels, int64_t width) {
  if (stride[1] == 1) {
    for (int64_t j = 0; j < width; ++j) std::copy_n(in + j * pixel_stride, channels, row + j * stride[3]);
    return;
  }
  for (int64_t j = 0; j < width; ++j)
    for (int64_t c = 0; c < channels; ++c) row[c * stride[1] + j * stride[3]] = in[j * pixel_stride + c];
}

void direct(const Call& call, const Filter& f, const float* packed, const float* bias, int64_t pad_h, int64_t pad_w) {
  const Size4& size = call.size;
  const int64_t height = call.out_size[2], width = call.out_size[3];
  const Shift s = call.shift(f.in);
  // Bands of rows: small enough for L2, and enough of them for every thread.
  const int64_t line = (size[3] + 2 * pad_w) * f.in, threads = torch::stable::get_num_threads();
  const int64_t fits = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, line) - f.kh + 1);
  const int64_t share = std::max<int64_t>(1, size[0] * height / (4 * threads));
  const int64_t rows = std::min({fits, share, height});
  const int64_t bands = (height + rows - 1) / rows;
  parallel(size[0] * bands, rows * width * f.out * f.in * f.kh * f.kw, [&](int64_t first, int64_t last) {
    const int64_t held = (rows + f.kh - 1) * line;
    const Floats input = floats(held), output = floats(width * f.channels());
    for (int64_t item = first; item < last; ++item) {
      const int64_t frame = item / bands, t = frame % s.n;
      const int64_t top = item % bands * rows, bottom = std::min(top + rows, height);
      std::fill_n(input.get(), held, 0.0f);
      for (int64_t row = top; row < bottom + f.kh - 1; ++row) {
        const int64_t source_row = row - pad_h;
        if (source_row < 0 || source_row >= size[2]) continue;
        for (int part = 0; part < 3; ++part) {
          const int64_t from = s.source(t, part);
          if (from < 0 || s.begin(part) == s.end(part)) continue;
          read_row(call.image, frame - t + from, source_row, s.begin(part), s.end(part), size[3],
                   input.get() + (row - top) * line + pad_w * f.in, f.in);
        }
      }
      for (int64_t row = top; row < bottom; ++row) {
        const float* src = input.get() + (row - top) * line;
        conv_row({{src, src, src}, {0, f.in, f.in, f.in}, line, f.in, f.kh, f.kw, f.in, width, packed, bias, f.channels(),
                  call.activation, output.get()});
        write_row(output.get(), f.channels(), call.out_row(frame, row), call.out_stride, f.out, width);
      }
    }
  });
}

// --- a stack of 3x3 layers --------------------------------------------------------------------------------------------

class Stack {
 public:
  Stack(const Call& call, std::vector<Layer> layers, int64_t pad_h, int64_t pad_w)
      : call_(call), layers_(std::move(layers)), pad_h_(pad_h), pad_w_(pad_w) {}

  void run() const {
    int64_t work = 0;
    for (const Layer& l : layers_)
      work += call_.out_size[2] * call_.out_size[3] * l.filter.out * l.filter.in * (l.filter.direct() ? 9 : 3);
    const int64_t n = call_.n_segment, clips = call_.size[0] / n, threads = torch::stable::get_num_threads();
    if (threads > 1 && clips < 2 * threads) {  // few clips: the threads share each layer
      const Buffers buffers(*this, call_.size[0]);
      frames(0, call_.size[0], buffers, Together{});
    } else {  // many: each thread takes whole clips, one at a time, through all layers
      share_out(clips, n * work, [&](int64_t begin, int64_t end) {
        const Buffers buffers(*this, n);
        for (int64_t c = begin; c < end; ++c) frames(c * n, n, buffers, Alone{});
      });
    }
  }

 private:
  Call call_;
  std::vector<Layer> layers_;
  int64_t pad_h_, pad_w_;

  // Each layer's input, and the last one's output where it becomes planes.
  struct Buffers {
    std::vector<Padded> inputs;
    Floats output;

    Buffers(const Stack& s, int64_t frames) {
      const int64_t height = s.call_.out_size[2], width = s.call_.out_size[3];
      for (const Layer& l : s.layers_) {
        const bool dense = inputs.empty() && l.filter.direct();  // a layer's output has whole vectors of channels
        inputs.emplace_back(frames, s.call_.size[2], s.call_.size[3], height, width, s.pad_h_, s.pad_w_,
                            dense ? l.filter.in : round_up(l.filter.in, 16));
      }
      if (!s.call_.nhwc()) output = floats(frames * height * width * s.layers_.back().filter.channels());
    }
  };

  template <class Each>
  void frames(int64_t first, int64_t frames, const Buffers& buffers, const Each& each) const {
    const Size4& size = call_.out_size;
    const Tiling tiling{frames, size[2], size[3]};
    read(call_.image, call_.size, first, frames, buffers.inputs[0].inside(), each);
    for (size_t l = 0; l < layers_.size(); ++l) {
      const Layer& layer = layers_[l];
      const Filter& f = layer.filter;
      const auto run = [&](const Rows& out, int64_t channels) {
        conv_layer(layer, call_.shift(f.in), call_.activation, buffers.inputs[l], tiling, out, channels, each);
      };
      if (l + 1 < layers_.size()) {
        run(buffers.inputs[l + 1].inside(), f.channels());
      } else if (call_.nhwc()) {
        run({call_.out + first * call_.out_stride[0], call_.out_stride[0], call_.out_stride[2], f.out}, f.out);
      } else {
        const int64_t row = size[3] * f.channels();
        const Rows out{buffers.output.get(), size[2] * row, row, f.channels()};
        run(out, f.channels());
        write_planes(out, size, first, frames, call_.out, each);
      }
    }
  }
};

// --- in bfloat16, on tiles ---------------------------------------------------------------------------------------------

#ifdef BK_AMX
constexpr int64_t kSmallImage = 1024;     // pixels
constexpr int64_t kSmallSpace = 1 << 22;  // floats of a thread's workspace
constexpr int64_t kSmallClip = 64000000;  // multiplications that one thread does in a tenth of a millisecond,
constexpr int64_t kSomeClips = 8;         // or as many clips

// 3x3 layers with zeros around the images; of a few channels, which lie otherwise, only what comes from outside.
bool fits_tiles(const std::vector<Tensor>& weights, int64_t pad_h, int64_t pad_w) {
  bool fits = pad_h == 1 && pad_w == 1;
  for (size_t l = 0; l < weights.size(); ++l)
    fits = fits && is_3x3(weights[l]) && weights[l].size(1) > 0 && (l == 0 || !is_few(weights[l].size(1)));
  return fits;
}

// None where threads do better to share a clip, in floats. That goes by sizes alone: results are the same on any number of them.
std::optional<Tensor> in_tiles(const Tensor& x, const std::vector<Tensor>& weights,
                               const std::vector<std::optional<Tensor>>& biases, int64_t n_segment, int64_t fold_div, bool wrap,
                               Activation activation, const std::optional<Tensor>& packed) {
  const Size4 size = sizes4(x);
  const int64_t clips = size[0] / n_segment;
  std::vector<std::vector<float>> bias;
  std::vector<HalfLayer> layers;
  int64_t work = 0;  // of a clip
  for (size_t l = 0; l < weights.size(); ++l) {
    const int64_t in = weights[l].size(1), out = weights[l].size(0);
    bias.push_back(padded_bias(biases[l], out));
    layers.push_back({in, out, is_few(in), nullptr, bias.back().data()});
    work += n_segment * size[2] * size[3] * 9 * in * out;
  }
  HalfTrunk trunk{layers.data(), static_cast<int64_t>(layers.size()), static_cast<const uint16_t*>(x.const_data_ptr()), nullptr,
                  strides4(x), size[2], size[3], n_segment, fold_div, wrap, wants_nhwc(x), activation};
  const int64_t space = amx::trunk_workspace(trunk);
  if (size[2] * size[3] > kSmallImage || space > kSmallSpace || (work > kSmallClip && clips < kSomeClips)) return std::nullopt;
  Tensor y = empty4({size[0], weights.back().size(0), size[2], size[3]}, dtype_of(x), trunk.nhwc);
  if (y.numel() == 0) return y;
  std::vector<float> own(packed.has_value() ? 0 : tiles_size_of(weights));
  if (!packed.has_value()) pack_tiles(weights, own.data());
  const float* tiles = packed.has_value() ? packed->const_data_ptr<float>() + floats_of(weights) : own.data();
  for (size_t l = 0; l < weights.size(); ++l) {
    layers[l].filter = reinterpret_cast<const uint16_t*>(tiles);
    tiles += tiles_size(weights[l], layers[l].few);
  }
  trunk.y = static_cast<uint16_t*>(y.mutable_data_ptr());
  share_out(clips, work / 16, [&](int64_t begin, int64_t end) {  // 16 times as many as floats in the same time
    amx::trunk(trunk, floats(space).get(), begin, end);
  });
  return y;
}
#endif

// --- the ops ----------------------------------------------------------------------------------------------------------

// float32 and half precision, stride 1: one layer of any filter, or a stack of 3x3 layers with the same padding.
Tensor convolve(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<std::optional<Tensor>>& biases,
                int64_t n_segment, int64_t fold_div, bool wrap, int64_t pad_h, int64_t pad_w, Activation activation,
                const std::optional<Tensor>& packed_weights) {
#ifdef BK_AMX
  if (isa() == Isa::amx && dtype_of(x) == aoti_torch_dtype_bfloat16() && fits_tiles(weights, pad_h, pad_w)) {
    const auto y = in_tiles(x, weights, biases, n_segment, fold_div, wrap, activation, packed_weights);
    if (y.has_value()) return *y;
  }
#endif
  const Size4 size = sizes4(x);
  const Filter last(weights.back());
  const Size4 out_size{size[0], last.out, size[2] + 2 * pad_h - last.kh + 1, size[3] + 2 * pad_w - last.kw + 1};
  const bool nhwc = wants_nhwc(x);
  Tensor y = empty4(out_size, aoti_torch_dtype_float32(), nhwc);
  if (y.numel() > 0) {
    const Tensor input = is_float(x) ? x : torch::stable::to(x, ScalarType::Float);
    const Tensor packed = packed_weights.has_value() ? *packed_weights : empty1(floats_of(weights), aoti_torch_dtype_float32());
    if (!packed_weights.has_value()) pack_floats(weights, packed.mutable_data_ptr<float>());
    std::vector<Layer> layers;
    const float* p = packed.const_data_ptr<float>();
    for (size_t l = 0; l < weights.size(); ++l) {
      const Filter f(weights[l]);
      layers.push_back({f, p, padded_bias(biases[l], f.out)});
      p += f.packed_size();
    }
    const Call call{{input.const_data_ptr<float>(), strides4(input)}, size, n_segment, fold_div, wrap, activation,
                    y.mutable_data_ptr<float>(), out_size, nhwc ? nhwc_strides(out_size) : nchw_strides(out_size)};
    if (layers.size() == 1 && last.direct())
      direct(call, last, layers[0].packed, layers[0].bias.data(), pad_h, pad_w);
    else
      Stack(call, std::move(layers), pad_h, pad_w).run();
  }
  return is_float(x) ? y : torch::stable::to(y, x.scalar_type());
}

Tensor wtsm_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t n_segment,
                   int64_t fold_div, bool wrap, const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                   const std::vector<int64_t>& dilation, int64_t groups, const std::string& activation,
                   const std::optional<Tensor>& packed) {
  check_clips(x, n_segment, fold_div);
  STD_TORCH_CHECK(weight.dim() == 4 && fits(x, weight) && groups > 0 && weight.size(0) % groups == 0 &&
                      x.size(1) == weight.size(1) * groups,
                  "weight must be (Cout, C/groups, kh, kw), of x's dtype");
  STD_TORCH_CHECK(!bias.has_value() || (bias->dim() == 1 && bias->size(0) == weight.size(0) && fits(x, *bias)),
                  "bias must be (Cout,), of x's dtype");
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(x.size(2 + i) + 2 * padding[i] >= dilation[i] * (weight.size(2 + i) - 1) + 1,
                    "weight reaches over more pixels than there are");
  }
  check_packed(packed, {weight});
  const Activation a = bk::activation(activation);
  const bool plain = stride[0] == 1 && stride[1] == 1 && dilation[0] == 1 && dilation[1] == 1 && groups == 1;
  if (plain && (is_float(x) || is_half(x)))
    return convolve(x, {weight}, {bias}, n_segment, fold_div, wrap, padding[0], padding[1], a, packed);
  const Tensor shifted = aten("bigsmall_kernels::wtsm", "", x, n_segment, fold_div, wrap);
  const Tensor y = aten("aten::convolution", "", shifted, weight, bias, stride, padding, dilation, false,
                        std::vector<int64_t>{0, 0}, groups);
  return with_layout(activated(y, a), wants_nhwc(x));
}

Tensor wtsm_conv2d_stack(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                         int64_t n_segment, int64_t fold_div, bool wrap, const std::string& activation,
                         const std::optional<Tensor>& packed) {
  check_stack(x, weights, biases, n_segment, fold_div);
  check_packed(packed, weights);
  if (is_float(x) || is_half(x)) {
    const std::vector<std::optional<Tensor>> given(biases.begin(), biases.end());
    return convolve(x, weights, given, n_segment, fold_div, wrap, 1, 1, bk::activation(activation), packed);
  }
  const std::vector<int64_t> ones{1, 1};
  Tensor y = x;
  for (size_t l = 0; l < weights.size(); ++l)
    y = wtsm_conv2d(y, weights[l], biases[l], n_segment, fold_div, wrap, ones, ones, ones, 1, activation, std::nullopt);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("wtsm_conv2d", TORCH_BOX(&wtsm_conv2d));
  m.impl("pack_wtsm_conv2d", TORCH_BOX(&pack_wtsm_conv2d));
  m.impl("wtsm_conv2d_stack", TORCH_BOX(&wtsm_conv2d_stack));
  m.impl("pack_wtsm_conv2d_stack", TORCH_BOX(&pack_wtsm_conv2d_stack));
}

}  // namespace bk
