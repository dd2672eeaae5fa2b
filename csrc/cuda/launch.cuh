// What every op needs on the host: the tensor's device and stream, outputs on that device, and the launch.
#pragma once

#include <cuda_runtime.h>

#include "cpu/tensor.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#ifndef BK_KEY  // the tests interpret the same kernels under the CPU key
#define BK_KEY CUDA
#endif

namespace bk {

using Half = torch::headeronly::Half;
using BFloat16 = torch::headeronly::BFloat16;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The device of a tensor made current, and torch's stream of it.
class Queue {
 public:
  explicit Queue(const Tensor& x) : guard_(x.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // Kernels walk through the rest of their work, so that a grid never exceeds what CUDA takes.
  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, Arguments&&... arguments) const {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(std::min<int64_t>(blocks, INT32_MAX)));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = stream_;
    const cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
    STD_TORCH_CHECK(error == cudaSuccess, "a CUDA kernel could not be launched: ", cudaGetErrorString(error));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// An uninitialised tensor on x's device.
inline Tensor empty_on(const Tensor& x, const std::vector<int64_t>& size, const std::vector<int64_t>& stride, int32_t dtype) {
  int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(size.size()), size.data(), stride.data(), dtype,
                                                         device, x.get_device_index(), &handle));
  return Tensor(handle);
}
inline std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& size) {
  std::vector<int64_t> stride(size.size());
  int64_t step = 1;
  for (size_t d = size.size(); d-- > 0; step *= std::max<int64_t>(size[d], 1)) stride[d] = step;
  return stride;
}
inline Tensor empty_on(const Tensor& x, const std::vector<int64_t>& size, int32_t dtype) {
  return empty_on(x, size, contiguous_strides(size), dtype);
}
// (N, C, H, W) in the layout that reference.memory_format gives an output of x.
inline Tensor empty4_on(const Tensor& x, const Size4& size, int32_t dtype) {
  const Size4 stride = wants_nhwc(x) ? nhwc_strides(size) : nchw_strides(size);
  return empty_on(x, {size.begin(), size.end()}, {stride.begin(), stride.end()}, dtype);
}

inline bool is_aligned(const void* pointer, int64_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

}  // namespace bk
