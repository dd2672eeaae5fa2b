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

void conv_row(const ConvRow& row) { BK_DISPATCH(conv_row, row); }
void conv_tiles(const ConvTiles& tiles) { BK_DISPATCH(conv_tiles, tiles); }

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

constexpr int64_t kDirectChannels = 4;  // reference.DIRECT_CHANNELS
constexpr double kWinograd[5][3] = {  // reference.WINOGRAD_3X3
    {1, 0, 0}, {-8. / 9, -4. / 9, -2. / 9}, {-2. / 9, 2. / 9, -2. / 9}, {1. / 9, 2. / 9, 4. / 9}, {0, 0, 1}};

struct Filter {
  int64_t out, in, kh, kw;
  explicit Filter(const Tensor& w) : out(w.size(0)), in(w.size(1)), kh(w.size(2)), kw(w.size(3)) {}
  int64_t channels() const { return round_up(out, 16); }
  bool direct() const { return kh != 3 || kw != 3 || in <= kDirectChannels; }
  int64_t packed_size() const { return channels() * in * (direct() ? kh * kw : 25); }
};

// (Cout, Cin, kh, kw) -> (Cout/16, kh, kw, Cin, 16), or (25, Cout/16, Cin, 16) in the Winograd domain; zero beyond Cout.
void pack(const Tensor& weight, float* out) {
  const Filter f(weight);
  const Tensor dense = float_contiguous(weight);
  const float* w = dense.const_data_ptr<float>();
  const int64_t taps = f.kh * f.kw;
  std::fill(out, out + f.packed_size(), 0.0f);
  for (int64_t o = 0; o < f.out; ++o) {
    for (int64_t i = 0; i < f.in; ++i, w += taps) {
      if (f.direct()) {
        for (int64_t t = 0; t < taps; ++t) out[((o / 16 * taps + t) * f.in + i) * 16 + o % 16] = w[t];
        continue;
      }
      double half[5][3];
      for (int a = 0; a < 5; ++a)
        for (int x = 0; x < 3; ++x)
          half[a][x] = kWinograd[a][0] * w[x] + kWinograd[a][1] * w[3 + x] + kWinograd[a][2] * w[6 + x];
      for (int a = 0; a < 5; ++a)
        for (int b = 0; b < 5; ++b)
          out[(a * 5 + b) * f.channels() * f.in + (o / 16 * f.in + i) * 16 + o % 16] = static_cast<float>(
              kWinograd[b][0] * half[a][0] + kWinograd[b][1] * half[a][1] + kWinograd[b][2] * half[a][2]);
    }
  }
}

Tensor pack_wtsm_conv2d_stack(const std::vector<Tensor>& weights) {
  int64_t total = 0;
  for (const Tensor& w : weights) {
    STD_TORCH_CHECK(w.dim() == 4, "weights must be (Cout, Cin, kh, kw)");
    total += Filter(w).packed_size();
  }
  Tensor packed = empty1(total, aoti_torch_dtype_float32());
  float* out = packed.mutable_data_ptr<float>();
  for (const Tensor& w : weights) {
    pack(w, out);
    out += Filter(w).packed_size();
  }
  return packed;
}

Tensor pack_wtsm_conv2d(const Tensor& weight) { return pack_wtsm_conv2d_stack({weight}); }

Tensor checked_packed(const std::optional<Tensor>& packed, int64_t size) {
  STD_TORCH_CHECK(packed->is_cpu() && is_float(*packed) && packed->numel() == size && packed->is_contiguous(),
                  "packed must be this weight's own, ", size, " contiguous float32 values");
  return *packed;
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

// Threads share `items` of `work` multiplications each; below kSerialWork in all, one thread does them.
template <class F>
void parallel(int64_t items, int64_t work, const F& f) {
  torch::stable::parallel_for(0, items, std::max<int64_t>(1, kSerialWork / std::max<int64_t>(1, work)), f);
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

  Shift shift(int64_t channels) const { return {n_segment, channels, channels / fold_div, wrap, 1}; }
  float* out_row(int64_t frame, int64_t y) const { return out + frame * out_stride[0] + y * out_stride[2]; }
};

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
          read_row(call.image, frame - t + from, source_row, s.begin(part), s.end(part), size[3],
                   input.data() + (row - top) * line + pad_w * f.in, f.in);
        }
      }
      for (int64_t row = top; row < bottom; ++row) {
        const float* src = input.data() + (row - top) * line;
        conv_row({{src, src, src}, {0, f.in, f.in, f.in}, line, f.in, f.kh, f.kw, f.in, width, packed, bias, f.channels(),
                  call.activation, output.data()});
        write_row(output.data(), f.channels(), call.out_row(frame, row), call.out_stride, f.out, width);
      }
    }
  });
}

// --- a stack of 3x3 layers --------------------------------------------------------------------------------------------

// The activations of some clips before a layer: (frames, rows, pixels, channels) inside zeros that pad the layer's input
// and fill up its last 3x3 tiles.
class Padded {
 public:
  void reshape(int64_t frames, int64_t out_height, int64_t out_width, int64_t pad_h, int64_t pad_w, int64_t channels) {
    row_ = (round_up(out_width, 3) + 2) * channels;
    frame_ = (round_up(out_height, 3) + 2) * row_;
    channels_ = channels;
    pad_h_ = pad_h;
    pad_w_ = pad_w;
    zeros_ = frames;
    data_.assign((frames + 1) * frame_, 0.0f);  // the last one stays zero: what TSM shifts in
  }
  // Where the receptive field of output pixel (y, x) of a frame begins; frame -1 is all zeros.
  const float* window(int64_t frame, int64_t y, int64_t x = 0) const {
    return data_.data() + (frame < 0 ? zeros_ : frame) * frame_ + y * row_ + x * channels_;
  }
  float* pixel(int64_t frame, int64_t y, int64_t x = 0) {
    return data_.data() + frame * frame_ + (y + pad_h_) * row_ + (x + pad_w_) * channels_;
  }
  int64_t row_stride() const { return row_; }
  int64_t channels() const { return channels_; }

 private:
  std::vector<float> data_;
  int64_t row_ = 0, frame_ = 0, channels_ = 0, pad_h_ = 0, pad_w_ = 0, zeros_ = 0;
};

struct Layer {
  Filter filter;
  const float* packed;
  std::vector<float> bias;
};

class Stack {
 public:
  Stack(const Call& call, std::vector<Layer> layers, int64_t pad_h, int64_t pad_w)
      : call_(call), layers_(std::move(layers)), pad_h_(pad_h), pad_w_(pad_w), height_(call.out_size[2]),
        width_(call.out_size[3]), tiles_y_((height_ + 2) / 3), tiles_x_((width_ + 2) / 3) {}

  void run() const {
    int64_t work = 0;
    for (const Layer& l : layers_) work += height_ * width_ * l.filter.out * l.filter.in * (l.filter.direct() ? 9 : 3);
    const int64_t n = call_.n_segment, clips = call_.size[0] / n, threads = torch::stable::get_num_threads();
    if (clips < 2 * threads) {  // few clips: the threads share each layer
      std::vector<Padded> inputs = buffers(call_.size[0]);
      clip(0, call_.size[0], inputs, [](int64_t items, int64_t each, const auto& f) { parallel(items, each, f); });
    } else {  // many: each thread takes whole clips, one at a time, through all layers
      parallel(clips, n * work, [&](int64_t begin, int64_t end) {
        std::vector<Padded> inputs = buffers(n);
        for (int64_t c = begin; c < end; ++c)
          clip(c * n, n, inputs, [](int64_t items, int64_t, const auto& f) { f(0, items); });
      });
    }
  }

 private:
  Call call_;
  std::vector<Layer> layers_;
  int64_t pad_h_, pad_w_, height_, width_, tiles_y_, tiles_x_;

  // Each layer's input. A clip after the first overwrites the pixels and finds the zeros around them as they were.
  std::vector<Padded> buffers(int64_t frames) const {
    std::vector<Padded> inputs(layers_.size());
    for (size_t l = 0; l < layers_.size(); ++l) {
      const Filter& f = layers_[l].filter;
      const bool dense = l == 0 && f.direct();  // a layer's output has whole vectors of channels
      inputs[l].reshape(frames, height_, width_, pad_h_, pad_w_, dense ? f.in : round_up(f.in, 16));
    }
    return inputs;
  }

  // All layers of some frames. `each(items, work, f)` calls f(begin, end) over ranges that cover the items.
  template <class Each>
  void clip(int64_t first_frame, int64_t frames, std::vector<Padded>& inputs, const Each& each) const {
    const int64_t rows = frames * call_.size[2], channels = call_.size[1];
    Padded& a = inputs[0];
    each(rows, call_.size[3] * channels, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t frame = item / call_.size[2], y = item % call_.size[2];
        read_row(call_.image, first_frame + frame, y, 0, channels, call_.size[3], a.pixel(frame, y), a.channels());
      }
    });
    for (size_t l = 0; l < layers_.size(); ++l) {
      const Filter& f = layers_[l].filter;
      const Padded& in = inputs[l];
      Padded* next = l + 1 < layers_.size() ? &inputs[l + 1] : nullptr;
      const int64_t tiles = frames * tiles_y_ * tiles_x_, groups = (tiles + kTiles - 1) / kTiles;
      if (f.direct())
        each(frames * height_, width_ * f.out * f.in * 9, [&](int64_t begin, int64_t end) {
          direct_rows(layers_[l], in, next, first_frame, begin, end);
        });
      else
        each(groups, tiles * f.out * f.in * 25 / groups, [&](int64_t begin, int64_t end) {
          tile_groups(layers_[l], in, next, first_frame, tiles, groups, begin, end);
        });
    }
  }

  // Output rows (frame, y) of a layer, into the next layer's input or the output.
  void direct_rows(const Layer& layer, const Padded& in, Padded* next, int64_t first_frame, int64_t begin, int64_t end) const {
    const Filter& f = layer.filter;
    const Shift s = call_.shift(f.in);
    std::vector<float> line(width_ * f.channels());
    for (int64_t item = begin; item < end; ++item) {
      const int64_t frame = item / height_, y = item % height_, t = frame % s.n;
      ConvRow row{{}, {0, s.end(0), s.end(1), f.in}, in.row_stride(), in.channels(), 3, 3, f.in, width_, layer.packed,
                  layer.bias.data(), f.channels(), call_.activation, next ? next->pixel(frame, y) : line.data()};
      for (int part = 0; part < 3; ++part) {
        const int64_t from = s.source(t, part);
        row.src[part] = in.window(from < 0 ? -1 : frame - t + from, y);
      }
      conv_row(row);
      if (!next) write_row(row.out, f.channels(), call_.out_row(first_frame + frame, y), call_.out_stride, f.out, width_);
    }
  }

  // Groups of up to kTiles tiles (frame, y, x) of a layer, into the next layer's input or the output.
  void tile_groups(const Layer& layer, const Padded& in, Padded* next, int64_t first_frame, int64_t tiles, int64_t groups,
                   int64_t begin, int64_t end) const {
    const Filter& f = layer.filter;
    const Shift s = call_.shift(f.in);
    const int64_t input_size = 25 * kTiles * in.channels(), product_size = 25 * kTiles * 64;
    const std::unique_ptr<float[]> work(new float[input_size + product_size + kTiles * 9 * f.channels()]);
    ConvTiles group{0, {}, {s.end(0), s.end(1)}, in.row_stride(), in.channels(), f.in, layer.packed, layer.bias.data(),
                    f.channels(), call_.activation, work.get(), work.get() + input_size,
                    work.get() + input_size + product_size};
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = tiles * g / groups, last = tiles * (g + 1) / groups;
      group.count = last - first;
      for (int64_t tile = first; tile < last; ++tile) {
        const auto [frame, y, x] = place(tile);
        const int64_t t = frame % s.n;
        for (int part = 0; part < 3; ++part) {
          const int64_t from = s.fold == 0 ? t : s.source(t, part);
          group.src[tile - first][part] = in.window(from < 0 ? -1 : frame - t + from, y, x);
        }
      }
      conv_tiles(group);
      for (int64_t tile = first; tile < last; ++tile) {
        const auto [frame, y, x] = place(tile);
        const int64_t columns = std::min<int64_t>(3, width_ - x);
        for (int64_t i = 0; i < std::min<int64_t>(3, height_ - y); ++i) {
          const float* pixels = group.out + ((tile - first) * 9 + i * 3) * f.channels();
          if (next)
            std::copy_n(pixels, columns * f.channels(), next->pixel(frame, y + i, x));
          else
            write_row(pixels, f.channels(), call_.out_row(first_frame + frame, y + i) + x * call_.out_stride[3],
                      call_.out_stride, f.out, columns);
        }
      }
    }
  }

  std::array<int64_t, 3> place(int64_t tile) const {
    return {tile / (tiles_y_ * tiles_x_), tile / tiles_x_ % tiles_y_ * 3, tile % tiles_x_ * 3};
  }
};

// --- the ops ----------------------------------------------------------------------------------------------------------

// float32 and half precision, stride 1: one layer of any filter, or a stack of 3x3 layers with the same padding.
Tensor convolve(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<std::optional<Tensor>>& biases,
                int64_t n_segment, int64_t fold_div, bool wrap, int64_t pad_h, int64_t pad_w, Activation activation,
                const std::optional<Tensor>& packed_weights) {
  const Size4 size = sizes4(x);
  const Filter last(weights.back());
  const Size4 out_size{size[0], last.out, size[2] + 2 * pad_h - last.kh + 1, size[3] + 2 * pad_w - last.kw + 1};
  const bool nhwc = wants_nhwc(x);
  Tensor y = empty4(out_size, aoti_torch_dtype_float32(), nhwc);
  if (y.numel() > 0) {
    int64_t total = 0;
    for (const Tensor& w : weights) total += Filter(w).packed_size();
    const Tensor input = is_float(x) ? x : torch::stable::to(x, ScalarType::Float);
    const Tensor packed = packed_weights.has_value() ? checked_packed(packed_weights, total) : pack_wtsm_conv2d_stack(weights);
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
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && n_segment > 0 && fold_div > 0 && groups > 0 &&
                      x.size(0) % n_segment == 0 && x.size(1) == weight.size(1) * groups,
                  "wtsm_conv2d needs x of (B*n_segment, C, H, W) and weight of (Cout, C/groups, kh, kw)");
  STD_TORCH_CHECK(!bias.has_value() || bias->numel() == weight.size(0), "bias must be (Cout,)");
  const Activation a = parse(activation);
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
  STD_TORCH_CHECK(x.dim() == 4 && n_segment > 0 && fold_div > 0 && x.size(0) % n_segment == 0 && !weights.empty() &&
                      weights.size() == biases.size(),
                  "wtsm_conv2d_stack needs x of (B*n_segment, C, H, W) and a weight and a bias a layer");
  int64_t channels = x.size(1);
  for (size_t l = 0; l < weights.size(); ++l) {
    const Tensor& w = weights[l];
    STD_TORCH_CHECK(w.dim() == 4 && w.size(1) == channels && w.size(2) == 3 && w.size(3) == 3 && biases[l].numel() == w.size(0),
                    "layer ", l, " must be (Cout, ", channels, ", 3, 3) with a bias of (Cout,)");
    channels = w.size(0);
  }
  if (is_float(x) || is_half(x)) {
    const std::vector<std::optional<Tensor>> given(biases.begin(), biases.end());
    return convolve(x, weights, given, n_segment, fold_div, wrap, 1, 1, parse(activation), packed);
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
