// Image rows, channels last, in a ring of a workspace, and their way from and to tensors of any layout. Included inside the
// namespace of each instruction set, after vec.h.

#include "rings.h"

namespace {

// kLanes channels of kLanes neighbouring values between planes and pixels; only the first `channels` are there.
BK_INLINE void planes_to_pixels(const float* planes, int64_t plane, int64_t channels, float* pixels, int64_t pixel) {
  V v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = i < channels ? load(planes + i * plane) : V{};
  transpose(v);
  for (int i = 0; i < kLanes; ++i) store(pixels + i * pixel, v[i]);
}
BK_INLINE void pixels_to_planes(const float* pixels, int64_t pixel, int64_t channels, float* planes, int64_t plane) {
  V v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = load(pixels + i * pixel);
  transpose(v);
  for (int i = 0; i < kLanes; ++i) {
    if (i < channels) store(planes + i * plane, v[i]);
  }
}

// One image of a tensor, by its strides over channels, rows and columns.
struct Image {
  const float* data;
  int64_t channels, height, width, sc, sh, sw;
};

// Rows [first, last) of an image into the workspace, zeros outside.
void stage(const Image& a, const Rows& to, int64_t first, int64_t last) {
  const bool planes = a.sw == 1 && to.pixel % kLanes == 0 && a.width >= kLanes;
  const bool whole = planes ? ceil_div(a.channels, kLanes) * kLanes == to.pixel : a.channels == to.pixel;  // pixels
  for (int64_t r = first; r < last; ++r) {
    if (whole && r >= 0 && r < a.height)
      to.zero_beside(r, a.width);
    else
      to.zero(r);
  }
  first = greater(first, 0);
  last = lesser(last, a.height);
  if (a.sc == 1 && a.sw == to.pixel && a.channels == to.pixel) {
    for (int64_t r = first; r < last; ++r) __builtin_memcpy(to.at(r, 0), a.data + r * a.sh, a.width * a.sw * sizeof(float));
  } else if (planes) {
    for (int64_t c = 0; c < a.channels; c += kLanes) {
      for (int64_t r = first; r < last; ++r) {
        for (int64_t next = 0; next < a.width; next += kLanes) {
          const int64_t x = lesser(next, a.width - kLanes);
          planes_to_pixels(a.data + r * a.sh + c * a.sc + x, a.sc, a.channels - c, to.at(r, x) + c, to.pixel);
        }
      }
    }
  } else {
    for (int64_t r = first; r < last; ++r) {
      const float* from = a.data + r * a.sh;
      float* pixel = to.at(r, 0);
      for (int64_t x = 0; x < a.width; ++x, from += a.sw, pixel += to.pixel) {
        for (int64_t c = 0; c < a.channels; ++c) pixel[c] = from[c * a.sc];
      }
    }
  }
}

// A row of pixels to a tensor's.
void emit(const float* row, int64_t pixel, int64_t channels, int64_t width, float* to, int64_t sc, int64_t sw) {
  if (sc == 1 && sw == pixel && channels == pixel) {
    __builtin_memcpy(to, row, width * pixel * sizeof(float));
  } else if (sw == 1 && width >= kLanes) {
    for (int64_t c = 0; c < channels; c += kLanes) {
      for (int64_t next = 0; next < width; next += kLanes) {
        const int64_t x = lesser(next, width - kLanes);
        pixels_to_planes(row + x * pixel + c, pixel, channels - c, to + c * sc + x, sc);
      }
    }
  } else {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < channels; ++c) to[c * sc + x * sw] = row[x * pixel + c];
    }
  }
}

}  // namespace
