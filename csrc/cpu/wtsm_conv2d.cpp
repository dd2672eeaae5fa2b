// Temporal shift + convolution + bias + activation, one layer or a stack of 3x3 layers; the packing of its weights.
#include "wtsm_conv2d.h"

#include "isa.h"
#include "shift.h"
#include "tensor.h"

#define BK_KERNEL "wtsm_conv2d_kernel.h"
#include "each_isa.h"

namespace bk {
namespace {

constexpr int64_t kSerialWork = 400000;  // multiplications below which a second thread costs more than it brings

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

void conv_row(const ConvRow& row) { BK_DISPATCH(conv_row, row); }

Activation parse(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  STD_TORCH_CHECK(name == "elu", "activation must be none, relu, tanh or elu, got ", name);
  return Activation::elu;
}

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

struct Filter {
  int64_t out, in, kh, kw;
  explicit Filter(const Tensor& w) : out(w.size(0)), in(w.size(1)), kh(w.size(2)), kw(w.size(3)) {}
  int64_t channels() const { return round_up(out, 16); }
  int64_t packed_size() const { return channels() * in * kh * kw; }
};

Tensor float_contiguous(const Tensor& x) { return torch::stable::contiguous(torch::stable::to(x, ScalarType::Float)); }

// (Cout, Cin, kh, kw) -> (Cout/16, kh, kw, Cin, 16), zero beyond Cout.
void pack(const Tensor& weight, float* out) {
  const Filter f(weight);
  const Tensor dense = float_contiguous(weight);
  const float* w = dense.const_data_ptr<float>();
  const int64_t taps = f.kh * f.kw;
  std::fill(out, out + f.packed_size(), 0.0f);
  for (int64_t o = 0; o < f.out; ++o)
    for (int64_t i = 0; i < f.in; ++i)
      for (int64_t t = 0; t < taps; ++t) out[((o / 16 * taps + t) * f.in + i) * 16 + o % 16] = *w++;
}

Tensor pack_wtsm_conv2d(const Tensor& weight) {
  STD_TORCH_CHECK(weight.dim() == 4, "weight must be (Cout, Cin, kh, kw)");
  Tensor packed = empty1(Filter(weight).packed_size(), aoti_torch_dtype_float32());
  pack(weight, packed.mutable_data_ptr<float>());
  return packed;
}

Tensor pack_wtsm_conv2d_stack(const std::vector<Tensor>& weights) {
  int64_t total = 0;
  for (const Tensor& w : weights) total += Filter(w).packed_size();
  Tensor packed = empty1(total, aoti_torch_dtype_float32());
  float* out = packed.mutable_data_ptr<float>();
  for (const Tensor& w : weights) {
    pack(w, out);
    out += Filter(w).packed_size();
  }
  return packed;
}

Tensor checked_packed(const std::optional<Tensor>& packed, int64_t size) {
  STD_TORCH_CHECK(packed->is_cpu() && is_float(*packed) && packed->numel() == size && packed->is_contiguous(),
                  "packed must be this weight's own, ", size, " contiguous float32 values");
  return *packed;
}

std::vector<float> padded_bias(const std::optional<Tensor>& bias, int64_t channels) {
  std::vector<float> padded(channels, 0.0f);
  if (bias.has_value()) {
    const Tensor dense = float_contiguous(*bias);
    std::copy_n(dense.const_data_ptr<float>(), dense.numel(), padded.begin());
  }
  return padded;
}

// --- moving pixels between a tensor and the rows of a convolution -----------------------------------------------------

struct View {
  const float* data;
  Size4 stride;  // n, c, h, w
};

// Row `y` of channels [begin, end) of one image -> (width, pixel_stride) with channels fastest, from channel `begin` on.
void read_row(const View& image, int64_t frame, int64_t y, int64_t begin, int64_t end, int64_t width, float* out,
              int64_t pixel_stride) {
  const float* row = image.data + frame * image.stride[0] + y * image.stride[2];
  if (image.stride[1] == 1) {
    for (int64_t j = 0; j < width; ++j) std::copy_n(row + j * image.stride[3] + begin, end - begin, out + j * pixel_stride + begin);
    return;
  }
  for (int64_t c = begin; c < end; ++c)
    for (int64_t j = 0; j < width; ++j) out[j * pixel_stride + c] = row[c * image.stride[1] + j * image.stride[3]];
}

// (width, pixel_stride), channels fastest -> row `y` of one image of a dense output.
void write_row(const float* in, int64_t pixel_stride, float* image, const Size4& stride, int64_t y, int64_t channels,
               int64_t width) {
  float* row = image + y * stride[2];
  if (stride[1] == 1) {
    for (int64_t j = 0; j < width; ++j) std::copy_n(in + j * pixel_stride, channels, row + j * stride[3]);
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t j = 0; j < width; ++j) row[c * stride[1] + j * stride[3]] = in[j * pixel_stride + c];
}

// Threads share `items` of `work` multiplications each; below kSerialWork in all, one thread does them.
template <class F>
void parallel(int64_t items, int64_t work, const F& f) {
  torch::stable::parallel_for(0, items, std::max<int64_t>(1, kSerialWork / std::max<int64_t>(1, work)), f);
}

// --- one layer --------------------------------------------------------------------------------------------------------

Tensor layer(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Shift& s, int64_t pad_h,
             int64_t pad_w, Activation activation, const std::optional<Tensor>& packed_weight) {
  const Filter f(weight);
  const Size4 size = sizes4(x);
  const int64_t height = size[2] + 2 * pad_h - f.kh + 1, width = size[3] + 2 * pad_w - f.kw + 1;
  const bool nhwc = wants_nhwc(x);
  const Size4 out_size{size[0], f.out, height, width};
  Tensor y = empty4(out_size, aoti_torch_dtype_float32(), nhwc);
  if (y.numel() == 0) return y;
  const Size4 out_stride = nhwc ? nhwc_strides(out_size) : nchw_strides(out_size);
  float* out = y.mutable_data_ptr<float>();
  const Tensor packed = packed_weight.has_value() ? checked_packed(packed_weight, f.packed_size()) : pack_wtsm_conv2d(weight);
  const std::vector<float> padded = padded_bias(bias, f.channels());
  const View image{x.const_data_ptr<float>(), strides4(x)};

  // Bands of rows: small enough for L2, and enough of them for every thread.
  const int64_t line = (size[3] + 2 * pad_w) * f.in, threads = torch::stable::get_num_threads();
  const int64_t fits = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, line) - f.kh + 1);
  const int64_t share = std::max<int64_t>(1, size[0] * height / (4 * threads));
  const int64_t rows = std::min({fits, share, height});
  const int64_t bands = (height + rows - 1) / rows;
  const int64_t work = rows * width * f.out * f.in * f.kh * f.kw;
  parallel(size[0] * bands, work, [&](int64_t first, int64_t last) {
    std::vector<float> input((rows + f.kh - 1) * line), output(width * f.channels());
    for (int64_t item = first; item < last; ++item) {
      const int64_t frame = item / bands, t = frame % s.n;
      const int64_t top = item % bands * rows, bottom = std::min(top + rows, height);
      std::fill(input.begin(), input.end(), 0.0f);
      for (int64_t row = top; row < bottom + f.kh - 1; ++row) {
        const int64_t source_row = row - pad_h;
        if (source_row < 0 || source_row >= size[2]) continue;
        for (int part = 0; part < 3; ++part) {
          const int64_t from = s.source(t, part);
          if (from < 0 || s.begin(part) == s.end(part)) continue;
          read_row(image, frame - t + from, source_row, s.begin(part), s.end(part), size[3],
                   input.data() + (row - top) * line + pad_w * f.in, f.in);
        }
      }
      for (int64_t row = top; row < bottom; ++row) {
        const float* src = input.data() + (row - top) * line;
        conv_row({{src, src, src}, {0, f.in, f.in, f.in}, line, f.in, f.kh, f.kw, f.in, width,
                  packed.const_data_ptr<float>(), padded.data(), f.channels(), activation, output.data()});
        write_row(output.data(), f.channels(), out + frame * out_stride[0], out_stride, row, f.out, width);
      }
    }
  });
  return y;
}

Tensor wtsm_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t n_segment,
                   int64_t fold_div, bool wrap, const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                   const std::vector<int64_t>& dilation, int64_t groups, const std::string& activation,
                   const std::optional<Tensor>& packed) {
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && n_segment > 0 && fold_div > 0 && groups > 0 &&
                      x.size(0) % n_segment == 0 && x.size(1) == weight.size(1) * groups,
                  "wtsm_conv2d needs x of (B*n_segment, C, H, W) and weight of (Cout, C/groups, kh, kw)");
  STD_TORCH_CHECK(!bias.has_value() || bias->numel() == weight.size(0), "bias must be (Cout,)");
  const Activation a = parse(activation);
  const bool plain = stride[0] == 1 && stride[1] == 1 && dilation[0] == 1 && dilation[1] == 1 && groups == 1;
  if (plain && (is_float(x) || is_half(x))) {
    const Tensor input = is_float(x) ? x : torch::stable::to(x, ScalarType::Float);
    const Shift s{n_segment, x.size(1), x.size(1) / fold_div, wrap, 1};
    const Tensor y = layer(input, weight, bias, s, padding[0], padding[1], a, packed);
    return is_float(x) ? y : torch::stable::to(y, x.scalar_type());
  }
  const Tensor shifted = aten("bigsmall_kernels::wtsm", "", x, n_segment, fold_div, wrap);
  const Tensor y = aten("aten::convolution", "", shifted, weight, bias, stride, padding, dilation, false,
                        std::vector<int64_t>{0, 0}, groups);
  return with_layout(activated(y, a), wants_nhwc(x));
}

// --- a stack of layers ------------------------------------------------------------------------------------------------

// The activations of some clips between two layers: (frames, H+2, W+2, channels), a border of zeros around each image.
class Padded {
 public:
  void reshape(int64_t frames, int64_t height, int64_t width, int64_t channels) {
    row_ = (width + 2) * channels;
    frame_ = (height + 2) * row_;
    channels_ = channels;
    data_.assign((frames + 1) * frame_, 0.0f);  // the last one stays zero: what TSM shifts in
    zeros_ = frames;
  }
  // Where the receptive field of output row y of a frame begins; frame -1 is all zeros.
  const float* window(int64_t frame, int64_t y) const { return data_.data() + (frame < 0 ? zeros_ : frame) * frame_ + y * row_; }
  float* pixel(int64_t frame, int64_t y) { return data_.data() + frame * frame_ + (y + 1) * row_ + channels_; }
  int64_t row_stride() const { return row_; }
  int64_t channels() const { return channels_; }

 private:
  std::vector<float> data_;
  int64_t row_ = 0, frame_ = 0, channels_ = 0, zeros_ = 0;
};

struct Layer {
  Filter filter;
  const float* packed;
  std::vector<float> bias;
};

struct Stack {
  View image;
  Size4 size;  // of x
  int64_t n_segment, fold_div;
  bool wrap;
  Activation activation;
  std::vector<Layer> layers;
  float* out;
  Size4 out_stride;

  void read(Padded& buffer, int64_t first_frame, int64_t item) const {
    const int64_t frame = item / size[2], y = item % size[2];
    read_row(image, first_frame + frame, y, 0, size[1], size[3], buffer.pixel(frame, y), buffer.channels());
  }

  // Output row `item` (frame, y) of layer l, from `in` to `next`, or to the output after the last layer.
  void row(size_t l, const Padded& in, Padded& next, int64_t first_frame, int64_t item, std::vector<float>& line) const {
    const Layer& layer = layers[l];
    const Filter& f = layer.filter;
    const Shift s{n_segment, f.in, f.in / fold_div, wrap, 1};
    const int64_t frame = item / size[2], y = item % size[2], t = frame % n_segment;
    const bool final = l + 1 == layers.size();
    ConvRow row{{}, {0, s.end(0), s.end(1), f.in}, in.row_stride(), in.channels(), 3, 3, f.in, size[3], layer.packed,
                layer.bias.data(), f.channels(), activation, nullptr};
    for (int part = 0; part < 3; ++part) {
      const int64_t from = s.source(t, part);
      row.src[part] = in.window(from < 0 ? -1 : frame - t + from, y);
    }
    if (final) line.resize(size[3] * f.channels());
    row.out = final ? line.data() : next.pixel(frame, y);
    conv_row(row);
    if (final)
      write_row(row.out, f.channels(), out + (first_frame + frame) * out_stride[0], out_stride, y, f.out, size[3]);
  }

  // All layers of some clips. `each(items, work, f)` calls f(begin, end) over ranges that cover the items.
  template <class Each>
  void run(int64_t first_frame, int64_t frames, Padded& a, Padded& b, const Each& each) const {
    const int64_t rows = frames * size[2];
    a.reshape(frames, size[2], size[3], size[1]);
    each(rows, size[3] * size[1], [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) read(a, first_frame, item);
    });
    Padded *in = &a, *next = &b;
    for (size_t l = 0; l < layers.size(); ++l) {
      const Filter& f = layers[l].filter;
      if (l + 1 < layers.size()) next->reshape(frames, size[2], size[3], f.channels());
      each(rows, size[3] * f.out * f.in * 9, [&](int64_t begin, int64_t end) {
        std::vector<float> line;
        for (int64_t item = begin; item < end; ++item) row(l, *in, *next, first_frame, item, line);
      });
      std::swap(in, next);
    }
  }
};

Tensor wtsm_conv2d_stack(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                         int64_t n_segment, int64_t fold_div, bool wrap, const std::string& activation,
                         const std::optional<Tensor>& packed_weights) {
  STD_TORCH_CHECK(x.dim() == 4 && n_segment > 0 && fold_div > 0 && x.size(0) % n_segment == 0 && !weights.empty() &&
                      weights.size() == biases.size(),
                  "wtsm_conv2d_stack needs x of (B*n_segment, C, H, W) and a weight and a bias a layer");
  const std::vector<int64_t> ones{1, 1};
  if (!is_float(x) && !is_half(x)) {
    Tensor y = x;
    for (size_t l = 0; l < weights.size(); ++l)
      y = wtsm_conv2d(y, weights[l], biases[l], n_segment, fold_div, wrap, ones, ones, ones, 1, activation, std::nullopt);
    return y;
  }
  const Size4 size = sizes4(x);
  int64_t channels = size[1], total = 0, work = 0;
  for (size_t l = 0; l < weights.size(); ++l) {
    const Filter f(weights[l]);
    STD_TORCH_CHECK(f.in == channels && f.kh == 3 && f.kw == 3 && biases[l].numel() == f.out, "layer ", l,
                    " must be (Cout, ", channels, ", 3, 3) with a bias of (Cout,)");
    channels = f.out;
    total += f.packed_size();
    work += size[2] * size[3] * f.out * f.in * 9;
  }
  const bool nhwc = wants_nhwc(x);
  const Size4 out_size{size[0], channels, size[2], size[3]};
  Tensor y = empty4(out_size, aoti_torch_dtype_float32(), nhwc);
  if (y.numel() > 0) {
    const Tensor input = is_float(x) ? x : torch::stable::to(x, ScalarType::Float);
    const Tensor packed = packed_weights.has_value() ? checked_packed(packed_weights, total) : pack_wtsm_conv2d_stack(weights);
    Stack stack{{input.const_data_ptr<float>(), strides4(input)}, size, n_segment, fold_div, wrap, parse(activation), {},
                y.mutable_data_ptr<float>(), nhwc ? nhwc_strides(out_size) : nchw_strides(out_size)};
    const float* p = packed.const_data_ptr<float>();
    for (size_t l = 0; l < weights.size(); ++l) {
      const Filter f(weights[l]);
      stack.layers.push_back({f, p, padded_bias(biases[l], f.channels())});
      p += f.packed_size();
    }
    const int64_t clips = size[0] / n_segment, threads = torch::stable::get_num_threads();
    if (clips < 2 * threads) {  // few clips: the threads share each layer's rows
      Padded a, b;
      stack.run(0, size[0], a, b, [](int64_t items, int64_t each, const auto& f) { parallel(items, each, f); });
    } else {  // many: each thread takes whole clips, one at a time, through all layers
      parallel(clips, n_segment * work, [&](int64_t begin, int64_t end) {
        Padded a, b;
        for (int64_t clip = begin; clip < end; ++clip)
          stack.run(clip * n_segment, n_segment, a, b, [](int64_t items, int64_t, const auto& f) { f(0, items); });
      });
    }
  }
  return is_float(x) ? y : torch::stable::to(y, x.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("wtsm_conv2d", TORCH_BOX(&wtsm_conv2d));
  m.impl("pack_wtsm_conv2d", TORCH_BOX(&pack_wtsm_conv2d));
  m.impl("wtsm_conv2d_stack", TORCH_BOX(&wtsm_conv2d_stack));
  m.impl("pack_wtsm_conv2d_stack", TORCH_BOX(&pack_wtsm_conv2d_stack));
}

}  // namespace bk
