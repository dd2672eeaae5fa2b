// Rings of image rows in a thread's workspace. Included inside the namespace of each instruction set, after vec.h.

namespace {

// A ring of image rows, channels last, with `border` zero pixels on the left.
struct Rows {
  float* data;
  int64_t count, size, pixel, border;  // rows, floats of a row, floats of a pixel

  float* row(int64_t r) const { return data + (r + count) % count * size; }  // r >= -count
  float* at(int64_t r, int64_t x) const { return row(r) + (x + border) * pixel; }
  void zero(int64_t r) const { __builtin_memset(row(r), 0, size * sizeof(float)); }
  // Beside the `width` pixels of an image.
  void zero_beside(int64_t r, int64_t width) const {
    float* const begin = row(r);
    __builtin_memset(begin, 0, border * pixel * sizeof(float));
    __builtin_memset(begin + (border + width) * pixel, 0, (size - (border + width) * pixel) * sizeof(float));
  }
};

// Divides up a thread's workspace; without one, only counts its floats.
struct Arena {
  float* base;
  int64_t size = 0;

  float* take(int64_t n) {
    float* p = base == nullptr ? nullptr : base + size;
    size += ceil_div(n, 16) * 16;
    return p;
  }
  Rows ring(int64_t count, int64_t pixels, int64_t pixel, int64_t border) {
    return {take(count * pixels * pixel), count, pixels * pixel, pixel, border};
  }
};

}  // namespace
