// Pages under results, and memory of a call, which its thread keeps for its next calls.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace bk {

// Asks for huge pages under what is new and large: to fault it in by small ones costs more than to write it, on a virtual
// machine up to 2 microseconds for 4 KB.
inline void huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) & ~(kPage - 1);
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Blocks that a thread has no use for at the moment. To get pages from the system anew costs more than a small layer's
// arithmetic on them: a microsecond for 4 KB, and an allocator gives back to it what lies at the end of its heap.
class Kept {
 public:
  static Kept& of_thread() {
    static thread_local Kept kept;
    return kept;
  }
  Kept() = default;
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  ~Kept() {
    for (const Block& block : blocks_) release(block);
  }
  // The smallest block that is large enough, but not for much less; or a new one. `size` becomes the block's.
  float* take(int64_t& size) {
    auto best = blocks_.end();
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      if (block->size >= size && block->size <= 2 * size && (best == blocks_.end() || block->size < best->size)) best = block;
    }
    if (best == blocks_.end()) return static_cast<float*>(::operator new[](size * sizeof(float), kAlign));
    const Block block = *best;
    blocks_.erase(best);
    held_ -= size = block.size;
    return block.data;
  }
  // The blocks of longest ago make room for it; not all of them for one that is too large to be kept.
  void give(float* data, int64_t size) {
    if (size > kMost) return release({data, size});
    blocks_.push_back({data, size});
    held_ += size;
    while (held_ > kMost || blocks_.size() > kBlocks) {
      held_ -= blocks_.front().size;
      release(blocks_.front());
      blocks_.erase(blocks_.begin());
    }
  }

 private:
  struct Block {
    float* data;
    int64_t size;
  };
  static constexpr std::align_val_t kAlign{64};
  static constexpr int64_t kMost = 1 << 22;  // floats: 16 MB
  static constexpr size_t kBlocks = 16;
  static void release(const Block& block) { ::operator delete[](block.data, kAlign); }

  std::vector<Block> blocks_;
  int64_t held_ = 0;
};

struct GiveBack {
  int64_t size = 0;
  void operator()(float* data) const { Kept::of_thread().give(data, size); }
};
using Floats = std::unique_ptr<float[], GiveBack>;  // uninitialised, on a cache line
inline Floats floats(int64_t size) {
  float* data = Kept::of_thread().take(size);
  return Floats(data, GiveBack{size});
}

}  // namespace bk
