// Multiply-adds in registers alone, the most that a core can do; twelve independent chains hide their latency.
#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { CHAINS = 12 };
typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));

long flops_of_a_round(void) { return 2 * CHAINS * LANES; }

float run(long rounds, float factor, float summand) {
  Vector chains[CHAINS];
  for (int i = 0; i < CHAINS; ++i) chains[i] = i * summand - (Vector){0};  // equal ones would be computed once
  const Vector a = factor - (Vector){0}, b = summand - (Vector){0};
  for (; rounds > 0; --rounds)
    for (int i = 0; i < CHAINS; ++i) chains[i] = chains[i] * a + b;
  Vector sum = {0};
  for (int i = 0; i < CHAINS; ++i) sum += chains[i];
  float all = 0;
  for (int i = 0; i < LANES; ++i) all += sum[i];
  return all;
}
