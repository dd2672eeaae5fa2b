// The activations of a convolution's epilogue. Included inside the namespace of each instruction set, after vec.h.

// exp(x) - 1 to float32 rounding relative to itself: a polynomial for x - k ln 2, then 2^k (p + 1) - 1.
static BK_INLINE V expm1(V x) {
  const V clamped = x > 88.0f ? splat(88.0f) : x < -88.0f ? splat(-88.0f) : x;
  const V scaled = clamped * 1.44269504f;
  const VI k = __builtin_convertvector(scaled + (scaled < 0.0f ? splat(-0.5f) : splat(0.5f)), VI);
  const V kf = __builtin_convertvector(k, V);
  const V r = (clamped - kf * 0.693359375f) + kf * 2.12194440e-4f;
  V p = splat(1.9841270e-4f);
  p = p * r + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r;
  const VI bits = (k + 127) << 23;
  V two_k;
  __builtin_memcpy(&two_k, &bits, sizeof(bits));
  const V y = two_k * p + (two_k - 1.0f);
  return x == x ? y : x;
}

static BK_INLINE V elu(V v) { return v > 0.0f ? v : expm1(v); }

// e / (e + 2) with e = exp(2|x|) - 1: exact to rounding near zero too.
static BK_INLINE V tanh(V v) {
  const V magnitude = v < 0.0f ? -v : v;
  const V bounded = magnitude > 10.0f ? splat(10.0f) : magnitude;
  const V e = expm1(bounded + bounded);
  const V y = e / (e + 2.0f);
  return v < 0.0f ? -y : y;
}

static BK_INLINE V activate(V v, Activation a) {
  switch (a) {
    case Activation::relu: return relu(v);
    case Activation::tanh: return tanh(v);
    case Activation::elu: return elu(v);
    default: return v;
  }
}
