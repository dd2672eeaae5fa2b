// The gradients of shift + convolution + activation, of one layer or a stack of 3x3 layers.
//
// Clip by clip, from the last layer to the first: the activation's derivative, the filter's gradient, the bias's, and the
// input's gradient, which is a convolution with the turned filter behind the shift's adjoint. Parts of the clips have sums
// of their own, added up in order at the end: the bits depend on the sizes alone, not on the threads.
#include "isa.h"
#include "wtsm_conv2d_layers.h"

#define BK_KERNEL "wtsm_conv2d_backward_kernel.h"
#include "each_isa.h"

namespace bk {
namespace {

constexpr int64_t kParts = 16;              // at most so many sums of the parameters' gradients
constexpr int64_t kPartFloats = 1 << 24;    // and so much memory for them, but one
constexpr int64_t kPixels = 96;             // of a direct convolution whose products are summed together
constexpr int64_t kOuterChannels = 32;      // and so many output channels

void tile_gradients(const TileGradients& tiles) { BK_DISPATCH(tile_gradients, tiles); }
void outer_products(const OuterProducts& products) { BK_DISPATCH(outer_products, products); }
void gradient_row(const GradientRow& row) { BK_DISPATCH(gradient_row, row); }
void pixel_sums(const PixelSums& sums) { BK_DISPATCH(pixel_sums, sums); }
void unpack_filter(const FilterLayout& layout, const float* packed, float* weight, int64_t begin, int64_t end) {
  BK_DISPATCH(unpack_filter, layout, packed, weight, begin, end);
}

// --- the filter's gradient --------------------------------------------------------------------------------------------

// Both set `sum` (in the layout of the packed filter), or add to it, from a layer's input and the gradient of its output.

// A pixel of inputs and its neighbours to the right are one vector, so a row of taps is one matrix product over the pixels
// of a row of outputs.
template <class Each>
void direct_gradient(const Filter& f, const Shift& s, const Padded& x, const Padded& dy, const Tiling& tiling, float* sum,
                     bool add, const Each& each) {
  const int64_t width = tiling.width, pixels = width + f.kw - 1, rows = f.kw * f.in, size = f.kh * pixels * f.in;
  const int64_t channels = f.channels(), blocks = (channels + kOuterChannels - 1) / kOuterChannels;
  const int64_t lines = tiling.frames * tiling.height, most = std::max<int64_t>(1, Each::kGroups * kPixels / width);
  const Rows gradients = dy.inside();
  const Floats memory = floats(std::min(lines, most) * size);
  float* const shifted = memory.get();
  for (int64_t first = 0; first < lines; first += most) {
    const int64_t batch = std::min(lines - first, most);
    each(batch, size, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t frame = (first + i) / tiling.height, y = (first + i) % tiling.height;
        for (int64_t ky = 0; ky < f.kh; ++ky) {
          float* const row = shifted + i * size + ky * pixels * f.in;
          for (int part = 0; part < 3; ++part) {
            const float* from = x.window(source(s, frame, part), y + ky);
            for (int64_t j = 0; j < pixels; ++j) {
              for (int64_t c = s.begin(part); c < s.end(part); ++c) row[j * f.in + c] = from[j * x.channels() + c];
            }
          }
        }
      }
    });
    each(blocks, batch * width * f.rows() * kOuterChannels, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t c = block * kOuterChannels;
        for (int64_t i = 0; i < batch; ++i) {
          const float* b = gradients.at((first + i) / tiling.height, (first + i) % tiling.height) + c;
          for (int64_t ky = 0; ky < f.kh; ++ky)
            outer_products({width, rows, std::min(kOuterChannels, channels - c), shifted + i * size + ky * pixels * f.in,
                            f.in, b, channels, add || first + i > 0, sum + c * f.rows() + ky * rows * 16, 16 * f.rows()});
        }
      }
    });
  }
}

template <class Each>
void winograd_gradient(const Filter& f, const Shift& s, const Padded& x, const Padded& dy, const Tiling& tiling, float* sum,
                       bool add, const Each& each) {
  const int64_t channels = f.channels(), blocks = (channels + kOuterChannels - 1) / kOuterChannels;
  const int64_t tiles = tiling.count(), groups = each.groups(tiles), work = tiles * f.in * channels;
  const int64_t v_plane = kTiles * x.channels(), m_plane = kTiles * channels, size = 25 * (v_plane + m_plane);
  const auto begin_of = [&](int64_t group) { return tiles * group / groups; };
  const Rows gradients = dy.inside();
  const Floats memory = floats(std::min(groups, Each::kGroups) * size);
  float* const space = memory.get();
  for (int64_t done = 0; done < groups; done += Each::kGroups) {
    const int64_t batch = std::min(groups - done, Each::kGroups);
    each(batch, size, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = begin_of(done + i), last = begin_of(done + i + 1);
        float* const v = space + i * size;
        tile_inputs(tile_sources(x, s, tiling, first, last, v));
        TileGradients group{last - first, {}, gradients.row, gradients.pixel, channels, v + 25 * v_plane};
        for (int64_t tile = first; tile < last; ++tile) {
          const auto [frame, y, column] = tiling.place(tile);
          group.src[tile - first] = gradients.at(frame, y, column);
        }
        tile_gradients(group);
      }
    });
    each(25 * blocks, work * batch / (groups * blocks), [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t plane = item / blocks, c = item % blocks * kOuterChannels;
        for (int64_t i = 0; i < batch; ++i) {
          const float* const v = space + i * size;
          outer_products({begin_of(done + i + 1) - begin_of(done + i), f.in, std::min(kOuterChannels, channels - c),
                          v + plane * v_plane, x.channels(), v + 25 * v_plane + plane * m_plane + c, channels,
                          add || done + i > 0, sum + (plane * channels + c) * f.in, 16 * f.in});
        }
      }
    });
  }
}

// --- all gradients ----------------------------------------------------------------------------------------------------

struct GradientLayer {
  Layer forward, turned;  // without packed filters where they are not needed
};

struct Call {
  View image, grad;
  std::optional<View> output;  // else the layers are run again
  Size4 size, out_size;
  int64_t n_segment, fold_div;
  bool wrap;
  Activation activation;
  int64_t pad_h, pad_w;
  bool need_x, need_weights, need_biases;
  float* gx;
  Size4 gx_stride;

  Shift shift(int64_t channels, int direction) const {
    return {n_segment, channels, channels / fold_div, wrap, direction};
  }
};

class Backward {
 public:
  Backward(const Call& call, std::vector<GradientLayer> layers) : call_(call), layers_(std::move(layers)) {
    for (const GradientLayer& l : layers_) {
      const Filter& f = l.forward.filter;
      offsets_.push_back(size_);
      size_ += f.packed_size() + f.channels();
      work_ += call_.out_size[2] * call_.out_size[3] * f.out * f.rows() * (f.direct() ? 3 : 9);
    }
  }

  // The sums of the parameters' gradients: per layer a filter's, packed, and a bias's.
  Floats run() const {
    const int64_t n = call_.n_segment, clips = call_.size[0] / n, threads = torch::stable::get_num_threads();
    const int64_t parts = std::max<int64_t>(1, std::min({clips, kParts, kPartFloats / size_}));
    Floats sums = floats(parts * size_);
    if (clips == 0) std::fill_n(sums.get(), size_, 0.0f);
    const auto run_parts = [&](int64_t begin, int64_t end, const auto& each) {
      const Buffers buffers(*this);
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = clips * part / parts, last = clips * (part + 1) / parts;
        for (int64_t c = first; c < last; ++c) clip(c * n, buffers, sums.get() + part * size_, c > first, each);
      }
    };
    if (parts < threads)
      run_parts(0, parts, Together{});
    else
      share_out(parts, clips * n * work_ / parts, [&](int64_t begin, int64_t end) { run_parts(begin, end, Alone{}); });
    if (parts > 1) {
      parallel(size_, parts, [&](int64_t begin, int64_t end) {
        for (int64_t part = 1; part < parts; ++part) {
          const float* from = sums.get() + part * size_;
          for (int64_t i = begin; i < end; ++i) sums[i] += from[i];
        }
      });
    }
    return sums;
  }
  int64_t offset(size_t layer) const { return offsets_[layer]; }

 private:
  Call call_;
  std::vector<GradientLayer> layers_;
  std::vector<int64_t> offsets_;
  int64_t size_ = 0, work_ = 0;

  // Of one clip: each layer's input, the last one's output, the gradients of the layers' outputs before their activation,
  // and that of a layer's shifted input.
  struct Buffers {
    std::vector<Padded> inputs, gradients, shifted;
    Padded output;
    Floats image;

    explicit Buffers(const Backward& b) {
      const Call& call = b.call_;
      const int64_t n = call.n_segment, height = call.out_size[2], width = call.out_size[3];
      const int64_t in_height = call.size[2], in_width = call.size[3];
      for (const GradientLayer& l : b.layers_) {
        const Filter& f = l.forward.filter;
        const bool first = inputs.empty(), dense = first && f.direct();
        inputs.emplace_back(n, in_height, in_width, height, width, call.pad_h, call.pad_w,
                            dense ? f.in : round_up(f.in, 16));
        gradients.emplace_back(n, height, width, in_height, in_width, f.kh - 1 - call.pad_h, f.kw - 1 - call.pad_w,
                               f.channels());
        shifted.push_back(!first || call.need_x
                              ? Padded(n, in_height, in_width, in_height, in_width, 0, 0, round_up(f.in, 16))
                              : Padded());
      }
      if (call.activation != Activation::none)
        output = Padded(n, height, width, height, width, 0, 0, gradients.back().channels());
      if (call.need_x) image = floats(n * call.size[2] * call.size[3] * round_up(call.size[1], 16));
    }
  };

  template <class Each>
  void clip(int64_t first, const Buffers& buffers, float* sums, bool add, const Each& each) const {
    const int64_t n = call_.n_segment, height = call_.out_size[2], width = call_.out_size[3];
    const Tiling outputs{n, height, width}, inputs{n, call_.size[2], call_.size[3]};
    const Rows output = buffers.output.inside();
    if (call_.need_weights || layers_.size() > 1) read(call_.image, call_.size, first, n, buffers.inputs[0].inside(), each);
    if (call_.output) {
      if (call_.activation != Activation::none) read(*call_.output, call_.out_size, first, n, output, each);
    } else {
      for (size_t l = 0; l < layers_.size(); ++l) {
        const Filter& f = layers_[l].forward.filter;
        const bool last = l + 1 == layers_.size();
        if (last && call_.activation == Activation::none) break;
        conv_layer(layers_[l].forward, call_.shift(f.in, 1), call_.activation, buffers.inputs[l], outputs,
                   last ? output : buffers.inputs[l + 1].inside(), f.channels(), each);
      }
    }
    read(call_.grad, call_.out_size, first, n, buffers.gradients.back().inside(), each);
    const int64_t channels = buffers.gradients.back().channels();
    if (call_.activation != Activation::none) {
      const Rows g = buffers.gradients.back().inside();
      each(n * height, width * channels, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          float* row = g.at(item / height, item % height);
          gradient_row({{row, row, row}, {0, 0}, width, channels, g.pixel, output.pixel, g.pixel,
                        output.at(item / height, item % height), call_.activation, row});
        }
      });
    }
    for (size_t l = layers_.size(); l-- > 0;) {
      const Filter& f = layers_[l].forward.filter;
      const Padded& gradient = buffers.gradients[l];
      float* const sum = sums + offsets_[l];
      if (call_.need_weights && f.direct())
        direct_gradient(f, call_.shift(f.in, 1), buffers.inputs[l], gradient, outputs, sum, add, each);
      else if (call_.need_weights)
        winograd_gradient(f, call_.shift(f.in, 1), buffers.inputs[l], gradient, outputs, sum, add, each);
      if (call_.need_biases) bias_gradient(gradient, outputs, sum + f.packed_size(), add, each);
      if (l == 0 && !call_.need_x) break;
      const Shift none{n, f.out, 0, true, 1}, adjoint = call_.shift(f.in, -1);
      const Padded& shifted = buffers.shifted[l];
      conv_layer(layers_[l].turned, none, Activation::none, gradient, inputs, shifted.inside(), shifted.channels(), each);
      const int64_t pixel = shifted.channels(), line = inputs.width * pixel;
      const Rows x = buffers.inputs[l].inside();
      const Rows to = l > 0 ? buffers.gradients[l - 1].inside() : Rows{buffers.image.get(), inputs.height * line, line, pixel};
      each(n * inputs.height, line, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t frame = item / inputs.height, y = item % inputs.height;
          GradientRow row{{}, {adjoint.end(0), adjoint.end(1)}, inputs.width, pixel, pixel, x.pixel, to.pixel,
                          x.at(frame, y), l > 0 ? call_.activation : Activation::none, to.at(frame, y)};
          for (int part = 0; part < 3; ++part) row.src[part] = shifted.window(source(adjoint, frame, part), y);
          gradient_row(row);
        }
      });
      if (l == 0) write(to, first, each);
    }
  }

  template <class Each>
  void bias_gradient(const Padded& gradient, const Tiling& t, float* sum, bool add, const Each& each) const {
    const Rows g = gradient.inside();
    if (!add) std::fill_n(sum, g.pixel, 0.0f);
    each(g.pixel / 16, t.frames * t.height * t.width * 16, [&](int64_t begin, int64_t end) {
      pixel_sums({g.data, t.frames, t.height, t.width, g.frame, g.row, g.pixel, 16 * begin, 16 * end, sum});
    });
  }

  // The gradient of x.
  template <class Each>
  void write(const Rows& from, int64_t first, const Each& each) const {
    const Size4 &size = call_.size, &stride = call_.gx_stride;
    if (stride[1] != 1) {
      write_planes(from, size, first, call_.n_segment, call_.gx, each);
      return;
    }
    each(call_.n_segment * size[2], size[3] * size[1], [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t frame = item / size[2], y = item % size[2];
        float* to = call_.gx + (first + frame) * stride[0] + y * stride[2];
        for (int64_t x = 0; x < size[3]; ++x) std::copy_n(from.at(frame, y, x), size[1], to + x * stride[3]);
      }
    });
  }
};

struct Gradients {
  Tensor x;
  std::vector<Tensor> weights, biases;
};

Tensor as_float(const Tensor& x) { return is_float(x) ? x : torch::stable::to(x, ScalarType::Float); }

// float32 and half precision, stride 1. `mask`: of x, the weights, the biases; empty tensors stand for the others.
Gradients gradients(const Tensor& grad, const std::optional<Tensor>& y, const Tensor& x, const std::vector<Tensor>& weights,
                    const std::vector<Tensor>& biases, int64_t n_segment, int64_t fold_div, bool wrap, int64_t pad_h,
                    int64_t pad_w, Activation activation, const std::array<bool, 3>& mask) {
  const Size4 size = sizes4(x), out_size = sizes4(grad);
  const int32_t type = aoti_torch_dtype_float32();
  const bool nhwc = wants_nhwc(x);
  const auto as_given = [&](const Tensor& t) { return is_float(x) ? t : torch::stable::to(t, x.scalar_type()); };
  const auto size_of = [](const Tensor& t) { return sizes4(t); };
  Tensor gx = mask[0] ? empty4(size, type, nhwc) : empty1(0, type);
  const Tensor image = as_float(x), gradient = as_float(grad);
  const std::optional<Tensor> output = y ? std::optional<Tensor>(as_float(*y)) : std::nullopt;
  // The filters as they are for running the layers again, turned for the gradients of their inputs.
  int64_t total = 0;
  for (const Tensor& w : weights) total += 2 * std::max(Filter(w).packed_size(), Filter(w).turned().packed_size());
  const Floats packed = floats(total);
  float* next = packed.get();
  std::vector<GradientLayer> layers;
  for (size_t l = 0; l < weights.size(); ++l) {
    const Filter f(weights[l]), turned = f.turned();
    const Tensor dense = float_contiguous(weights[l]);
    const bool again = !y && (l + 1 < weights.size() || activation != Activation::none);
    layers.push_back({{f, next, again ? padded_bias(biases[l], f.out) : std::vector<float>()},
                      {turned, nullptr, std::vector<float>(turned.channels(), 0.0f)}});
    if (again) {
      pack(f, false, dense.const_data_ptr<float>(), next);
      next += f.packed_size();
    }
    if (l > 0 || mask[0]) {
      layers[l].turned.packed = next;
      pack(turned, true, dense.const_data_ptr<float>(), next);
      next += turned.packed_size();
    }
  }
  const Call call{{image.const_data_ptr<float>(), strides4(image)}, {gradient.const_data_ptr<float>(), strides4(gradient)},
                  output ? std::optional<View>({output->const_data_ptr<float>(), strides4(*output)}) : std::nullopt, size,
                  out_size, n_segment, fold_div, wrap, activation, pad_h, pad_w, mask[0], mask[1], mask[2],
                  gx.mutable_data_ptr<float>(), nhwc ? nhwc_strides(size) : nchw_strides(size)};
  const Backward backward(call, layers);
  const Floats sums = backward.run();
  Gradients result{as_given(gx), {}, {}};
  for (size_t l = 0; l < weights.size(); ++l) {
    const Filter& f = layers[l].forward.filter;
    const float* sum = sums.get() + backward.offset(l);
    Tensor gw = mask[1] ? empty4(size_of(weights[l]), type, false) : empty1(0, type);
    if (mask[1]) {
      float* to = gw.mutable_data_ptr<float>();
      parallel(f.channels() / 16 * f.in, 800, [&](int64_t begin, int64_t end) {
        unpack_filter(f.layout(false), sum, to, begin, end);
      });
    }
    Tensor gb = empty1(mask[2] ? f.out : 0, type);
    if (mask[2]) std::copy_n(sum + f.packed_size(), f.out, gb.mutable_data_ptr<float>());
    result.weights.push_back(as_given(gw));
    result.biases.push_back(as_given(gb));
  }
  return result;
}

// --- the ops ----------------------------------------------------------------------------------------------------------

bool computed(const Tensor& x) { return is_float(x) || is_half(x); }

// Everything else is the reference's composition of other ops, which stands under a name of its own.
template <class Result, class... Args>
Result composed(const char* name, const Args&... args) {
  std::array<StableIValue, sizeof...(Args)> stack{torch::stable::detail::from(args)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack.data(), TORCH_ABI_VERSION));
  if constexpr (std::is_same_v<Result, std::vector<Tensor>>) {
    return torch::stable::detail::to<Result>(stack[0]);
  } else {
    return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1]),
            torch::stable::detail::to<Tensor>(stack[2])};
  }
}

using Three = std::tuple<Tensor, Tensor, Tensor>;

Three wtsm_conv2d_backward(const Tensor& grad, const Tensor& y, const Tensor& x, const Tensor& weight, bool has_bias,
                           int64_t n_segment, int64_t fold_div, bool wrap, const std::vector<int64_t>& stride,
                           const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, int64_t groups,
                           const std::string& activation, const std::vector<bool>& mask) {
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && grad.dim() == 4 && n_segment > 0 && fold_div > 0 &&
                      x.size(0) % n_segment == 0 && mask.size() == 3,
                  "wtsm_conv2d_backward needs grad, x of (B*n_segment, C, H, W) and weight of (Cout, C/groups, kh, kw)");
  const std::array<bool, 3> wanted{mask[0], mask[1], mask[2]};
  const int64_t side = weight.size(2);
  const bool plain = stride[0] == 1 && stride[1] == 1 && dilation[0] == 1 && dilation[1] == 1 && groups == 1;
  const bool small = (side == 3 || side == 1) && weight.size(3) == side && padding[0] < side && padding[1] < side;
  if (!computed(x) || !plain || !small)
    return composed<Three>("bigsmall_kernels_impl::wtsm_conv2d_backward_composed", grad, y, x, weight, has_bias, n_segment,
                           fold_div, wrap, stride, padding, dilation, groups, activation,
                           torch::headeronly::HeaderOnlyArrayRef<bool>(wanted.data(), wanted.size()));
  STD_TORCH_CHECK(x.size(1) == weight.size(1) && grad.size(0) == x.size(0) && grad.size(1) == weight.size(0) &&
                      grad.size(2) == x.size(2) + 2 * padding[0] - side + 1 &&
                      grad.size(3) == x.size(3) + 2 * padding[1] - side + 1,
                  "grad must have the sizes of the convolution's output");
  Gradients g = gradients(grad, y, x, {weight}, {}, n_segment, fold_div, wrap, padding[0], padding[1],
                          bk::activation(activation), wanted);
  return {g.x, g.weights[0], g.biases[0]};
}

std::vector<Tensor> wtsm_conv2d_stack_backward(const Tensor& grad, const Tensor& x, const std::vector<Tensor>& weights,
                                               const std::vector<Tensor>& biases, int64_t n_segment, int64_t fold_div,
                                               bool wrap, const std::string& activation, bool need_x) {
  if (!computed(x))
    return composed<std::vector<Tensor>>("bigsmall_kernels_impl::wtsm_conv2d_stack_backward_composed", grad, x, weights,
                                         biases, n_segment, fold_div, wrap, activation, need_x);
  check_stack(x, weights, biases, n_segment, fold_div);
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == x.size(0) && grad.size(1) == weights.back().size(0) &&
                      grad.size(2) == x.size(2) && grad.size(3) == x.size(3),
                  "grad must have the sizes of the last layer's output");
  Gradients g = gradients(grad, std::nullopt, x, weights, biases, n_segment, fold_div, wrap, 1, 1,
                          bk::activation(activation), {need_x, true, true});
  std::vector<Tensor> result{g.x};
  result.insert(result.end(), g.weights.begin(), g.weights.end());
  result.insert(result.end(), g.biases.begin(), g.biases.end());
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigsmall_kernels, CPU, m) {
  m.impl("wtsm_conv2d_backward", TORCH_BOX(&wtsm_conv2d_backward));
  m.impl("wtsm_conv2d_stack_backward", TORCH_BOX(&wtsm_conv2d_stack_backward));
}

}  // namespace bk
