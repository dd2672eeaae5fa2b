// The vector type of one instruction set: BK_LANES floats, with the operators of GCC's vector extension (a scalar operand
// is broadcast, a*b + c contracts to an FMA). Included inside the namespace of each instruction set by each_isa.h.

constexpr int kLanes = BK_LANES;
typedef float V __attribute__((vector_size(BK_LANES * sizeof(float))));
typedef int32_t VI __attribute__((vector_size(BK_LANES * sizeof(int32_t))));

#define BK_INLINE inline __attribute__((always_inline))

static BK_INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
static BK_INLINE int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }
static BK_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static BK_INLINE V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

static BK_INLINE void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof(v)); }

// Not V{} + s, which is no identity for -0 and costs an addition.
static BK_INLINE V splat(float s) { return s - V{}; }

// NaN stays NaN, as in torch.
static BK_INLINE V relu(V v) { return v < 0.0f ? V{} : v; }

// Lane j takes J[j] of a's lanes and, after them, b's.
template <int... J>
static BK_INLINE V pick(V a, V b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, J...);
#else
  return __builtin_shuffle(a, b, VI{J...});
#endif
}

// v[i][j] <-> v[j][i], by exchanging ever larger blocks.
template <int H, int... J>
static BK_INLINE void transpose_step(V* v, std::integer_sequence<int, J...>) {
  for (int i = 0; i < kLanes; ++i) {
    if (i & H) continue;
    const V a = v[i], b = v[i + H];
    v[i] = pick<((J & H) ? kLanes + J - H : J)...>(a, b);
    v[i + H] = pick<((J & H) ? kLanes + J : J + H)...>(a, b);
  }
  if constexpr (2 * H < kLanes) transpose_step<2 * H>(v, std::integer_sequence<int, J...>{});
}
static BK_INLINE void transpose(V (&v)[BK_LANES]) { transpose_step<1>(v, std::make_integer_sequence<int, BK_LANES>{}); }
