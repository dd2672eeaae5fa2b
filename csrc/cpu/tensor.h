// What every op needs of a tensor: layouts, outputs, and aten's functions by name.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "memory.h"

namespace bk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Size4 = std::array<int64_t, 4>;

inline Size4 sizes4(const Tensor& x) { return {x.size(0), x.size(1), x.size(2), x.size(3)}; }
inline Size4 strides4(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

// Strides of a dense tensor of these sizes whose dimensions are ordered by `order`, outermost first.
inline Size4 dense_strides(const Size4& size, const std::array<int, 4>& order) {
  Size4 stride{};
  int64_t step = 1;
  for (int i = 3; i >= 0; --i) {
    stride[order[i]] = step;
    step *= std::max<int64_t>(size[order[i]], 1);
  }
  return stride;
}
inline Size4 nchw_strides(const Size4& size) { return dense_strides(size, {0, 1, 2, 3}); }
inline Size4 nhwc_strides(const Size4& size) { return dense_strides(size, {0, 2, 3, 1}); }

inline bool has_strides(const Tensor& x, const Size4& stride) {
  for (int i = 0; i < 4; ++i) {
    if (x.size(i) == 0) return true;
  }
  for (int i = 0; i < 4; ++i) {
    if (x.size(i) > 1 && x.stride(i) != stride[i]) return false;
  }
  return true;
}
inline bool is_nchw(const Tensor& x) { return has_strides(x, nchw_strides(sizes4(x))); }
inline bool is_nhwc(const Tensor& x) { return has_strides(x, nhwc_strides(sizes4(x))); }
// The rule of reference.memory_format: a contiguous x gives a contiguous output, else a channels_last one that layout.
inline bool wants_nhwc(const Tensor& x) { return !is_nchw(x) && is_nhwc(x); }

// aoti_torch_dtype_*() of a tensor.
inline int32_t dtype_of(const Tensor& x) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  return dtype;
}
inline bool is_float(const Tensor& x) { return dtype_of(x) == aoti_torch_dtype_float32(); }
inline bool is_half(const Tensor& x) {
  return dtype_of(x) == aoti_torch_dtype_float16() || dtype_of(x) == aoti_torch_dtype_bfloat16();
}

// An uninitialised CPU tensor.
inline Tensor empty_cpu(const int64_t* size, const int64_t* stride, int64_t dim, int32_t dtype) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, size, stride, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  Tensor y(handle);
  int64_t bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(handle, &bytes));
  huge_pages(y.mutable_data_ptr(), bytes);
  return y;
}
inline Tensor empty4(const Size4& size, int32_t dtype, bool nhwc) {
  const Size4 stride = nhwc ? nhwc_strides(size) : nchw_strides(size);
  return empty_cpu(size.data(), stride.data(), 4, dtype);
}
inline Tensor empty1(int64_t size, int32_t dtype) {
  const int64_t stride = 1;
  return empty_cpu(&size, &stride, 1, dtype);
}

// An aten function with one tensor as its result, through the dispatcher.
template <class... Args>
Tensor aten(const char* name, const char* overload, const Args&... args) {
  std::array<StableIValue, sizeof...(Args)> stack{torch::stable::detail::from(args)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

inline Tensor float_contiguous(const Tensor& x) {
  const Tensor y = is_float(x) ? x : torch::stable::to(x, ScalarType::Float);
  return y.is_contiguous() ? y : torch::stable::contiguous(y);
}

// A bias of `channels`, or zeros, filled up with zeros to a multiple of 32.
inline std::vector<float> padded_bias(const std::optional<Tensor>& bias, int64_t channels) {
  std::vector<float> padded(round_up(channels, 32), 0.0f);
  if (bias.has_value() && bias->dim() == 1 && dtype_of(*bias) == aoti_torch_dtype_bfloat16()) {  // a call of aten's takes longer
    const auto* b = static_cast<const c10::BFloat16*>(bias->const_data_ptr());
    for (int64_t c = 0; c < channels; ++c) padded[c] = b[c * bias->stride(0)];
  } else if (bias.has_value()) {
    const Tensor b = float_contiguous(*bias);
    std::copy_n(b.const_data_ptr<float>(), channels, padded.data());
  }
  return padded;
}

}  // namespace bk
