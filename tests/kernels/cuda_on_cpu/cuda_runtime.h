// Stands in for the CUDA runtime, so that g++ compiles the kernels as they are and a processor interprets them: one block
// after another, a block's threads as fibers that take turns at every barrier. It shows arithmetic, indices, tails and
// barriers, and nothing of a GPU: its memory, its limits, its speed.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // blocks run one after another
#define __launch_bounds__(threads)

using std::isfinite;
using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace cuda_on_cpu {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_cpu: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
  std::abort();
}

// A thread of the block: it runs until it waits for its warp or its block, or ends.
struct Fiber {
  enum State { running, at_warp, at_block, ended };
  static constexpr size_t kStack = 1 << 17;

  ucontext_t context{};
  State state = running;
  int barrier = 0;          // which barrier it waits at: its place in the source
  uint64_t exchanged = 0;   // what it gives its warp
  std::unique_ptr<char[]> stack{new char[kStack]};
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current = 0;
inline std::function<void()> body;

inline void wait(Fiber::State state, int barrier) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  fiber.barrier = barrier;
  swapcontext(&fiber.context, &scheduler);
}

inline void enter() {
  body();
  fibers[current].state = Fiber::ended;
  swapcontext(&fibers[current].context, &scheduler);
}

// Lets [first, last) go on if all of them wait for one barrier of that kind.
inline bool release(unsigned first, unsigned last, Fiber::State state) {
  for (unsigned i = first; i < last; ++i) {
    if (fibers[i].state != state) return false;
    if (fibers[i].barrier != fibers[first].barrier) fail("threads wait at different barriers");
  }
  for (unsigned i = first; i < last; ++i) fibers[i].state = Fiber::running;
  return true;
}

inline void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = Fiber::kStack;
    makecontext(&fiber.context, enter, 0);
    fiber.state = Fiber::running;
  }
  bool backwards = false;  // every other turn, so that what a missing barrier leaves to chance comes out both ways
  for (bool moved = true; moved; backwards = !backwards) {
    moved = false;
    for (unsigned n = 0; n < threads; ++n) {
      const unsigned i = backwards ? threads - 1 - n : n;
      if (fibers[i].state != Fiber::running) continue;
      current = i;
      threadIdx = dim3(i);
      swapcontext(&scheduler, &fibers[i].context);
      moved = true;
    }
    for (unsigned w = 0; w < threads; w += 32) moved |= release(w, std::min(w + 32, threads), Fiber::at_warp);
    moved |= release(0, threads, Fiber::at_block);
  }
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i].state != Fiber::ended) fail("not every thread comes to a barrier");
  }
}

template <class T>
T from_lane(T value, unsigned lane, int barrier) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const unsigned warp = current / 32 * 32;
  __builtin_memcpy(&fibers[current].exchanged, &value, sizeof(T));
  wait(Fiber::at_warp, barrier);
  if (lane < 32) __builtin_memcpy(&value, &fibers[warp + lane].exchanged, sizeof(T));
  wait(Fiber::at_warp, barrier);
  return value;
}

}  // namespace cuda_on_cpu

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const unsigned threads = config->blockDim.x;
  if (cuda_on_cpu::fibers.size() < threads) cuda_on_cpu::fibers = std::vector<cuda_on_cpu::Fiber>(threads);
  cuda_on_cpu::body = [&] { kernel(arguments...); };
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    blockIdx = dim3(b);
    cuda_on_cpu::run_block(threads);
  }
  return cudaSuccess;
}

#define __syncthreads() cuda_on_cpu::wait(cuda_on_cpu::Fiber::at_block, __LINE__)
#define __shfl_down_sync(mask, value, far) cuda_on_cpu::from_lane(value, threadIdx.x % 32 + (far), __LINE__)

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline float __fdividef(float a, float b) { return a / b; }

// torch's own of these want a device; the library that is linked with -Bsymbolic finds ours.
extern "C" {
inline AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) { return *guard = nullptr, 0; }
inline AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return 0; }
inline AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) { return *stream = nullptr, 0; }
}
