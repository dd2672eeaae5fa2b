// The activations of a convolution's epilogue; NaN stays NaN.
#pragma once

#include <cuda_runtime.h>

#include "cpu/tensor.h"

namespace bk {

enum class Activation { none, relu, tanh, elu };

inline Activation activation_of(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  STD_TORCH_CHECK(name == "elu", "activation must be none, relu, tanh or elu, got ", name);
  return Activation::elu;
}

template <class R>
__device__ __forceinline__ R activate(R v, Activation activation) {
  switch (activation) {
    case Activation::relu: return v < 0 ? R(0) : v;
    case Activation::tanh: return ::tanh(v);
    case Activation::elu: return v > 0 ? v : ::expm1(v);
    default: return v;
  }
}

}  // namespace bk
