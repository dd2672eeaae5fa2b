// What a convolution and its gradients are made of: filters, padded activations, and a layer from the one to the other.
#pragma once

#include "memory.h"
#include "share.h"
#include "shift.h"
#include "tensor.h"
#include "wtsm_conv2d.h"

namespace bk {

constexpr int64_t kSerialWork = 400000;  // multiplications below which a second thread costs more than it brings

// Threads share `items` of `work` multiplications each; below kSerialWork in all, one thread does them.
template <class F>
void parallel(int64_t items, int64_t work, const F& f) {
  torch::stable::parallel_for(0, items, std::max<int64_t>(1, kSerialWork / std::max<int64_t>(1, work)), f);
}

// As `parallel`, for items that take long.
template <class F>
void share_out(int64_t items, int64_t work, const F& f) {
  share(items, std::max<int64_t>(1, kSerialWork / std::max<int64_t>(1, work)), f);
}

// Who does the work on a few clips: each(items, work, f) calls f(begin, end) over ranges that cover the items.
struct Alone {  // this thread
  static constexpr int64_t kGroups = 1;  // of tiles that are transformed before their products are summed
  int64_t groups(int64_t tiles) const { return (tiles + kTiles - 1) / kTiles; }
  template <class F>
  void operator()(int64_t items, int64_t, const F& f) const { f(0, items); }
};
struct Together {  // all threads
  static constexpr int64_t kGroups = 8;
  int64_t groups(int64_t tiles) const {
    const int64_t wanted = std::min<int64_t>(torch::stable::get_num_threads(), (tiles + 5) / 6);
    return std::max(wanted, (tiles + kTiles - 1) / kTiles);
  }
  template <class F>
  void operator()(int64_t items, int64_t work, const F& f) const { parallel(items, work, f); }
};

// --- memory -----------------------------------------------------------------------------------------------------------

// Values of (frame, y, x), channels fastest.
struct Rows {
  float* data;
  int64_t frame, row, pixel;  // strides
  float* at(int64_t f, int64_t y, int64_t x = 0) const { return data + f * frame + y * row + x * pixel; }
};

// The activations of some clips before a layer: (frames, rows, pixels, channels) inside zeros that pad the layer's input
// and fill up its last 3x3 tiles. A clip after the first overwrites the pixels and finds the zeros as they were.
class Padded {
 public:
  Padded() = default;
  Padded(int64_t frames, int64_t height, int64_t width, int64_t out_height, int64_t out_width, int64_t pad_h, int64_t pad_w,
         int64_t channels)
      : row_((round_up(out_width, 3) + 2) * channels), frame_((round_up(out_height, 3) + 2) * row_), channels_(channels),
        inside_(pad_h * row_ + pad_w * channels), zeros_(frames), data_(floats((frames + 1) * frame_)) {
    for (int64_t f = 0; f < frames; ++f) {
      float* edge = data_.get() + f * frame_;
      for (int64_t y = 0; y < height; ++y) {
        float* const row = data_.get() + f * frame_ + inside_ + y * row_;
        std::fill(edge, row, 0.0f);
        edge = row + width * channels;
      }
      std::fill(edge, data_.get() + (f + 1) * frame_, 0.0f);
    }
    std::fill_n(data_.get() + frames * frame_, frame_, 0.0f);  // what TSM shifts in
  }
  // Where the receptive field of output pixel (y, x) of a frame begins; frame -1 is all zeros.
  const float* window(int64_t frame, int64_t y, int64_t x = 0) const {
    return data_.get() + (frame < 0 ? zeros_ : frame) * frame_ + y * row_ + x * channels_;
  }
  Rows inside() const { return {data_.get() + inside_, frame_, row_, channels_}; }
  int64_t row_stride() const { return row_; }
  int64_t channels() const { return channels_; }

 private:
  int64_t row_ = 0, frame_ = 0, channels_ = 0, inside_ = 0, zeros_ = 0;
  Floats data_;
};

// --- filters ----------------------------------------------------------------------------------------------------------

constexpr int64_t kDirectChannels = 4;  // reference.DIRECT_CHANNELS

struct Filter {
  int64_t out, in, kh, kw;
  explicit Filter(const Tensor& w) : out(w.size(0)), in(w.size(1)), kh(w.size(2)), kw(w.size(3)) {}
  int64_t channels() const { return round_up(out, 16); }
  bool direct() const { return kh != 3 || kw != 3 || in <= kDirectChannels; }
  int64_t planes() const { return direct() ? 1 : 25; }              // matrix products
  int64_t rows() const { return direct() ? in * kh * kw : in; }  // of each
  int64_t packed_size() const { return channels() * rows() * planes(); }
  // Of the adjoint, the filter turned round.
  Filter turned() const {
    Filter f = *this;
    std::swap(f.out, f.in);
    return f;
  }
  FilterLayout layout(bool turned) const { return {out, in, kh * kw, !direct(), turned}; }
};

// A filter or a bias of x's dtype, on the CPU.
inline bool fits(const Tensor& x, const Tensor& parameter) {
  return parameter.is_cpu() && dtype_of(parameter) == dtype_of(x);
}

inline void check_clips(const Tensor& x, int64_t n_segment, int64_t fold_div) {
  STD_TORCH_CHECK(x.dim() == 4 && n_segment > 0 && fold_div > 0 && x.size(0) % n_segment == 0 &&
                      (is_float(x) || is_half(x) || dtype_of(x) == aoti_torch_dtype_float64()),
                  "x must be (B*n_segment, C, H, W), floating");
}

inline void check_stack(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                        int64_t n_segment, int64_t fold_div) {
  check_clips(x, n_segment, fold_div);
  STD_TORCH_CHECK(!weights.empty() && weights.size() == biases.size(), "a stack needs a weight and a bias a layer");
  int64_t channels = x.size(1);
  for (size_t l = 0; l < weights.size(); ++l) {
    const Tensor &w = weights[l], &b = biases[l];
    STD_TORCH_CHECK(w.dim() == 4 && w.size(1) == channels && w.size(2) == 3 && w.size(3) == 3 && fits(x, w) &&
                        b.dim() == 1 && b.size(0) == w.size(0) && fits(x, b),
                    "layer ", l, " must be (Cout, ", channels, ", 3, 3) with a bias of (Cout,), of x's dtype");
    channels = w.size(0);
  }
}

struct Layer {
  Filter filter;
  const float* packed;
  std::vector<float> bias;
};

// Packs contiguous weights; for a turned filter those of the filter that it is the adjoint of.
inline void pack(const Filter& f, bool turned, const float* weight, float* packed) {
  parallel(f.channels() / 16 * f.in, 800, [&](int64_t begin, int64_t end) {
    pack_filter(f.layout(turned), weight, packed, begin, end);
  });
}

// --- between a tensor and rows ----------------------------------------------------------------------------------------

struct View {
  const float* data;
  Size4 stride;  // n, c, h, w
};

inline bool has_planes(const Size4& size, const Size4& stride) {
  return stride[3] == 1 && stride[2] == size[3] && stride[1] != 1;
}

// Frames [first, first + frames) of an image of these sizes -> rows from frame 0 on.
template <class Each>
void read(const View& image, const Size4& size, int64_t first, int64_t frames, const Rows& to, const Each& each) {
  const int64_t channels = size[1], height = size[2], width = size[3];
  const float* data = image.data + first * image.stride[0];
  if (has_planes(size, image.stride) && to.pixel % 16 == 0) {
    const int64_t blocks = (channels + 15) / 16;
    each(frames * blocks, 16 * height * width, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t frame = item / blocks, c = item % blocks * 16;
        planes_to_pixels({std::min<int64_t>(16, channels - c), image.stride[1], height, width, to.row, to.pixel},
                         data + frame * image.stride[0] + c * image.stride[1], to.at(frame, 0) + c);
      }
    });
    return;
  }
  each(frames * height, channels * width, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t frame = item / height, y = item % height;
      const float* row = data + frame * image.stride[0] + y * image.stride[2];
      float* out = to.at(frame, y);
      if (image.stride[1] == 1 && image.stride[3] == channels && to.pixel == channels) {
        std::copy_n(row, width * channels, out);
        continue;
      }
      for (int64_t x = 0; x < width; ++x, row += image.stride[3], out += to.pixel) {
        if (image.stride[1] == 1)
          std::copy_n(row, channels, out);
        else
          for (int64_t c = 0; c < channels; ++c) out[c] = row[c * image.stride[1]];
      }
    }
  });
}

// Rows with all channels -> planes of those frames of a contiguous tensor of these sizes.
template <class Each>
void write_planes(const Rows& from, const Size4& size, int64_t first, int64_t frames, float* out, const Each& each) {
  const int64_t channels = size[1], plane = size[2] * size[3], blocks = (channels + 15) / 16;
  each(frames * blocks, 16 * plane, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t frame = item / blocks, c = item % blocks * 16;
      pixels_to_planes({std::min<int64_t>(16, channels - c), plane, size[2], size[3], from.row, from.pixel},
                       from.at(frame, 0) + c, out + ((first + frame) * channels + c) * plane);
    }
  });
}

// --- a layer ----------------------------------------------------------------------------------------------------------

// Output pixels of some frames in tiles of 3x3.
struct Tiling {
  int64_t frames, height, width;
  int64_t across() const { return (width + 2) / 3; }
  int64_t count() const { return frames * ((height + 2) / 3) * across(); }
  std::array<int64_t, 3> place(int64_t tile) const {  // frame, y, x
    const int64_t a = across(), d = (height + 2) / 3;
    return {tile / (d * a), tile / a % d * 3, tile % a * 3};
  }
};

// The frame, of some whole clips, from which a frame's range of channels comes; -1 for zeros.
inline int64_t source(const Shift& s, int64_t frame, int part) {
  const int64_t t = frame % s.n, from = s.fold == 0 ? t : s.source(t, part);
  return from < 0 ? -1 : frame - t + from;
}

// Where the inputs of tiles [first, last) begin, the shift in their addresses.
inline TileInputs tile_sources(const Padded& in, const Shift& s, const Tiling& tiling, int64_t first, int64_t last,
                               float* out) {
  TileInputs tiles{last - first, {}, {s.end(0), s.end(1)}, in.row_stride(), in.channels(), s.channels, out};
  for (int64_t tile = first; tile < last; ++tile) {
    const auto [frame, y, x] = tiling.place(tile);
    for (int part = 0; part < 3; ++part) tiles.src[tile - first][part] = in.window(source(s, frame, part), y, x);
  }
  return tiles;
}

// One layer, for output rows with `channels` channels: as many as the filter has, or filled up to a multiple of 16.
template <class Each>
void conv_layer(const Layer& layer, const Shift& s, Activation activation, const Padded& in, const Tiling& tiling,
                const Rows& out, int64_t channels, const Each& each) {
  const Filter& f = layer.filter;
  const bool whole = channels == f.channels();
  const int64_t size = tiling.height * tiling.width * tiling.frames * f.out * f.in;
  if (f.direct()) {
    const int64_t rows = tiling.frames * tiling.height;
    each(rows, size * f.kh * f.kw / rows, [&](int64_t begin, int64_t end) {
      const Floats line = whole ? Floats() : floats(tiling.width * f.channels());
      for (int64_t item = begin; item < end; ++item) {
        const int64_t frame = item / tiling.height, y = item % tiling.height;
        float* to = out.at(frame, y);
        ConvRow row{{}, {0, s.end(0), s.end(1), f.in}, in.row_stride(), in.channels(), f.kh, f.kw, f.in, tiling.width,
                    layer.packed, layer.bias.data(), f.channels(), activation, whole ? to : line.get()};
        for (int part = 0; part < 3; ++part) row.src[part] = in.window(source(s, frame, part), y);
        conv_row(row);
        for (int64_t x = 0; !whole && x < tiling.width; ++x)
          std::copy_n(line.get() + x * f.channels(), channels, to + x * out.pixel);
      }
    });
    return;
  }
  const int64_t tiles = tiling.count(), groups = each.groups(tiles);
  each(groups, size * 3 / groups, [&](int64_t begin, int64_t end) {
    const int64_t input = 25 * kRoom * in.channels(), product = 25 * kRoom * kProduct;
    const Floats memory = floats(input + product + kTiles * 9 * f.channels());
    float* const space = memory.get();
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = tiles * g / groups, last = tiles * (g + 1) / groups;
      ConvTiles group{tile_sources(in, s, tiling, first, last, space), layer.packed, layer.bias.data(), f.channels(),
                      activation, space + input, {}, out.row, out.pixel};
      // Tiles within the image go straight to it. If there are others, all take the way through the workspace.
      bool straight = whole;
      for (int64_t tile = first; tile < last; ++tile) {
        const auto [frame, y, x] = tiling.place(tile);
        straight = straight && y + 3 <= tiling.height && x + 3 <= tiling.width;
        group.out[tile - first] = out.at(frame, y, x);
      }
      if (straight) {
        conv_tiles(group);
        continue;
      }
      group.out_pixel = f.channels();
      group.out_row = 3 * f.channels();
      for (int64_t i = 0; i < last - first; ++i) group.out[i] = space + input + product + i * 9 * f.channels();
      conv_tiles(group);
      for (int64_t tile = first; tile < last; ++tile) {
        const auto [frame, y, x] = tiling.place(tile);
        for (int64_t i = 0; i < std::min<int64_t>(3, tiling.height - y); ++i) {
          for (int64_t j = 0; j < std::min<int64_t>(3, tiling.width - x); ++j)
            std::copy_n(group.out[tile - first] + (3 * i + j) * f.channels(), channels, out.at(frame, y + i, x + j));
        }
      }
    }
  });
}

}  // namespace bk
