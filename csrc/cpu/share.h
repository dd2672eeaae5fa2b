// Work for torch's threads in more pieces than there are threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace bk {

// Calls f(begin, end) over ranges that cover the items, of `least` at least. A thread takes the next range when it is done
// with one, so that nobody waits long for a thread whose core has other work too.
template <class F>
void share(int64_t items, int64_t least, const F& f) {
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t step = std::max(least, (items + 4 * threads - 1) / (4 * threads)), ranges = (items + step - 1) / step;
  if (threads == 1 || ranges <= 1) {
    f(0, items);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, std::min(threads, ranges), 1, [&](int64_t, int64_t) {
    for (int64_t r = next++; r < ranges; r = next++) f(r * step, std::min(items, (r + 1) * step));
  });
}

}  // namespace bk
