// The arithmetic of double_conv2d_pool for one instruction set (included by each_isa.h).
//
// A thread walks down an image a few tile rows at a time (a tile is 6x6 outputs): it copies the rows it needs, computes
// the first convolution's rows, the second's, and pools them, all in a workspace of its own that L2 holds. Rows are
// channels last, in rings: the first convolution runs one tile row ahead of the second, and nothing is computed twice
// except where two threads' parts of one image meet. Every output depends on its own tile alone, never on how the work
// was divided.

#include "image_rows.h"
#include "tile_products.h"
#include "rows_conv2d.h"

namespace {

// Where the second puts them: added to the means of pooled rows [first, last). The cells of kCell x kCell outputs of a
// tile, kCell = gcd(kSide, pool), each belong to one mean.
template <int kCell>
struct ToMeans {
  static constexpr int64_t kTogether = kFew;
  Rows means;
  int64_t pool, first, last, width;

  void operator()(const float* from, int64_t vectors, const float* bias, int64_t y, int64_t x) const {
    constexpr int kCells = kSide / kCell;
    float* to[kCells][kCells];
    for (int i = 0; i < kCells; ++i) {
      const int64_t row = (y + i * kCell) / pool;
      for (int j = 0; j < kCells; ++j) {
        const int64_t column = (x + j * kCell) / pool;
        to[i][j] = row >= first && row < last && column < width ? means.at(row, column) : nullptr;
      }
    }
    const float scale = 1.f / (static_cast<float>(pool) * static_cast<float>(pool));
    for (int64_t c = 0; c < vectors; ++c, from += Transformed::kVector) {
      V t[kSide * kInSide];
      untransform(Products{from}, load(bias + c * kLanes), t);
      for (int i = 0; i < kCells; ++i) {
        V sum[kCells] = {};
        for (int k = 0; k < kCell; ++k) {
          V v[kSide];
          output_transform(t + kInSide * (i * kCell + k), 1, v, 1);
          for (int j = 0; j < kSide; ++j) sum[j / kCell] += relu(v[j]);
        }
        for (int j = 0; j < kCells; ++j) {
          if (to[i][j] == nullptr) continue;
          float* mean = to[i][j] + c * kLanes;
          store(mean, load(mean) + sum[j] * scale);
        }
      }
    }
  }

  void done(const Tiles&, const Transformed&, const Transformed&) const {}
};

// --- one thread's part ------------------------------------------------------------------------------------------------

struct Workspace {
  int64_t step;  // tile rows that go through together
  Rows x, mid, means;
  float *v, *m;
  int64_t size;  // floats of it all

  Workspace(const DoubleConv2dPool& a, float* base) {
    const int64_t columns = ceil_div(a.width, kSide), rows = ceil_div(a.height, kSide);
    const int64_t steps = ceil_div(rows, greater(1, kStep / columns));
    step = ceil_div(rows, steps);
    Arena arena{base};
    const int64_t mid_pixel = ceil_div(a.mid, 16) * 16, y_pixel = ceil_div(a.out, 16) * 16;
    x = arena.ring(kSide * step + 2, kSide * columns + 2, ceil_div(a.in, kLanes) * kLanes, 1);
    mid = arena.ring(kSide * step + kSide + 1, kSide * columns + 2, mid_pixel, 1);
    means = arena.ring(kSide * step / a.pool + 2, a.width / a.pool, y_pixel, 0);
    const int64_t group = Transformed::kVector * ceil_div(lesser(kFew, step * columns), kGroup) / kLanes;
    v = arena.take(group * greater(x.pixel, mid_pixel));
    m = arena.take(group * greater(mid_pixel, y_pixel));
    size = arena.size;
  }
};

template <int kCell>
void image_rows(const DoubleConv2dPool& a, const Workspace& w, int64_t image, int64_t begin, int64_t end) {
  const Layer one{a.filter1, a.bias1, a.in, a.mid}, two{a.filter2, a.bias2, a.mid, a.out};
  const ToRows to_mid{w.mid, a.height, a.width};
  const ToMeans<kCell> to_means{w.means, a.pool, begin, end, a.width / a.pool};
  const Image x{a.x + image * a.x_stride[0], a.in, a.height, a.width, a.x_stride[1], a.x_stride[2], a.x_stride[3]};
  float* y = a.y + image * a.y_stride[0];
  for (int64_t r = 0; r < w.means.count; ++r) w.means.zero(r);
  const int64_t rows = ceil_div(a.height, kSide), last = ceil_div(end * a.pool, kSide);
  int64_t t = begin * a.pool / kSide, mid_next = t - 1, x_next = greater(kSide * mid_next, 0) - 1;
  while (t < last) {
    const int64_t stop = lesser(t + w.step, last);
    while (mid_next <= stop) {  // the second convolution reads one tile row more on each side
      int64_t mid_stop = mid_next + 1;
      if (mid_next < 0 || mid_next >= rows) {
        for (int64_t r = kSide * mid_next; r < kSide * mid_stop; ++r) {
          if (r >= -1) w.mid.zero(r);
        }
      } else {
        mid_stop = lesser(lesser(mid_next + w.step, stop + 1), rows);
        stage(x, w.x, x_next, kSide * mid_stop + 1);
        x_next = kSide * mid_stop + 1;
        winograd_to_rows(one, w.x, to_mid, mid_next, mid_stop, a.width, w.v, w.m);
      }
      mid_next = mid_stop;
    }
    winograd(two, w.mid, to_means, t, stop, a.width, w.v, w.m);
    for (; begin < end && (begin + 1) * a.pool <= kSide * stop; ++begin) {
      emit(w.means.row(begin), w.means.pixel, a.out, a.width / a.pool, y + begin * a.y_stride[2], a.y_stride[1],
           a.y_stride[3]);
      w.means.zero(begin);
    }
    t = stop;
  }
}

}  // namespace

// Floats of workspace a thread needs.
int64_t block_workspace(const DoubleConv2dPool& a) { return Workspace(a, nullptr).size; }

// Pooled rows [begin, end), counted through all images.
void block_rows(const DoubleConv2dPool& a, float* space, int64_t begin, int64_t end) {
  const Workspace w(a, space);
  for (int64_t r = 0; r < w.mid.count; ++r) {  // its left border is written nowhere else
    __builtin_memset(w.mid.row(r), 0, w.mid.pixel * sizeof(float));
    __builtin_memset(w.mid.row(r) + w.mid.size - w.mid.pixel, 0, w.mid.pixel * sizeof(float));
  }
  const int64_t height = a.height / a.pool;
  while (begin < end) {
    const int64_t image = begin / height, row = begin % height, rows = lesser(height - row, end - begin);
    if (a.pool % 6 == 0)
      image_rows<6>(a, w, image, row, row + rows);
    else if (a.pool % 3 == 0)
      image_rows<3>(a, w, image, row, row + rows);
    else if (a.pool % 2 == 0)
      image_rows<2>(a, w, image, row, row + rows);
    else
      image_rows<1>(a, w, image, row, row + rows);
    begin += rows;
  }
}

#include "double_conv2d_pool_backward_kernel.h"
