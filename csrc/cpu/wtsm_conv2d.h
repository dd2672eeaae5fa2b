// What wtsm_conv2d.cpp, wtsm_conv2d_backward.cpp and their kernels agree on.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace bk {

enum class Activation { none, relu, tanh, elu };
Activation activation(const std::string& name);

// One row of `width` output pixels. src[r] points at the receptive field's first value for channels [bound[r], bound[r+1]).
struct ConvRow {
  const float* src[3];
  int64_t bound[4];
  int64_t row_stride, pixel_stride;  // of src, in floats
  int64_t kh, kw, cin, width;
  const float* packed;  // blocks of 16 output channels: (channels / 16, kh, kw, cin, 16)
  const float* bias;    // padded to `channels`
  int64_t channels;     // of the output, padded to a multiple of 16
  Activation activation;
  float* out;  // (width, channels)
};

constexpr int kTiles = 30;  // of 3x3 output pixels, computed together: a clip of 9x9 images has 27
constexpr int kRoom = 39;     // tiles that a workspace has room for: their groups are padded
constexpr int kProduct = 32;  // output channels that are computed together

// The 5x5 inputs of up to kTiles tiles of a 3x3 convolution, into the domain of Winograd's F(3x3, 3x3).
struct TileInputs {
  int64_t count;
  const float* src[kTiles][3];  // each tile's first value, for the three channel ranges that `bound` separates
  int64_t bound[2];
  int64_t row_stride, pixel_stride;  // of src; pixel_stride is a multiple of 16
  int64_t cin;
  float* out;  // workspace: 25 * kRoom * pixel_stride; from tile_inputs (25, kTiles, pixel_stride)
};

// The convolution of those tiles.
struct ConvTiles {
  TileInputs in;
  const float* packed;  // (25, channels / 16, cin, 16)
  const float* bias;
  int64_t channels;
  Activation activation;
  float* product;  // workspace: 25 * kRoom * kProduct
  float* out[kTiles];  // each tile's first pixel
  int64_t out_row, out_pixel;
};

// The gradients at up to kTiles tiles of 3x3 outputs, into the domain of the products: the transform's adjoint.
struct TileGradients {
  int64_t count;
  const float* src[kTiles];
  int64_t row_stride, pixel_stride, channels;
  float* out;  // (25, kTiles, channels)
};

// out[c / 16 * out_block + i * 16 + c % 16] = (or +=) the sum over n of a[n][i] * b[n][c].
struct OuterProducts {
  int64_t count, rows, channels;  // channels: a multiple of 16
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  bool add;
  float* out;
  int64_t out_block;
};

// A row of gradients behind a shift's adjoint and an activation, from those before: src as in ConvRow, y the activation's
// output.
struct GradientRow {
  const float* src[3];
  int64_t bound[2];
  int64_t width, channels, src_pixel, y_pixel, out_pixel;  // channels: a multiple of 16
  const float* y;
  Activation activation;
  float* out;
};

// sums[c] += the sum over rows and pixels, for the channels [begin, end), multiples of 16.
struct PixelSums {
  const float* src;
  int64_t frames, height, width, frame_stride, row_stride, pixel_stride, begin, end;
  float* sums;
};

// A filter (out, in, taps) in its packed form, and back. Turned: the filter of the adjoint, of which `out` and `in` are.
struct FilterLayout {
  int64_t out, in, taps;
  bool winograd, turned;
};

// Channels of one frame between planes of contiguous pixels and rows of pixels, channels fastest.
struct PlanesAndPixels {
  int64_t channels, plane, height, width;
  int64_t row_stride, pixel_stride;
};

// A stack of 3x3 layers in bfloat16, on tiles.
struct HalfLayer {
  int64_t in, out;
  bool few;  // channels (see tiles.h), of the first one
  const uint16_t* filter;
  const float* bias;  // a multiple of 32 long
};
struct HalfTrunk {
  const HalfLayer* layers;
  int64_t depth;
  const uint16_t* x;
  uint16_t* y;
  std::array<int64_t, 4> x_stride;
  int64_t height, width, n, fold_div;
  bool wrap, nhwc;
  Activation activation;
};

// Each on this processor's instruction set; pack_filter and unpack_filter for blocks of 16 outputs times inputs [begin, end).
void conv_row(const ConvRow& row);
void conv_tiles(const ConvTiles& tiles);
void tile_inputs(const TileInputs& tiles);
void pack_filter(const FilterLayout& layout, const float* weight, float* packed, int64_t begin, int64_t end);
void planes_to_pixels(const PlanesAndPixels& frame, const float* planes, float* pixels);
void pixels_to_planes(const PlanesAndPixels& frame, const float* pixels, float* planes);

}  // namespace bk
