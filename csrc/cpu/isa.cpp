#include "isa.h"

#ifdef BK_X86
#include <cpuid.h>
#endif

#include <cstdlib>
#include <cstring>

namespace bk {

static Isa best() {
#ifdef BK_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::portable;
}

static Isa choose() {
  const Isa most = best();
  const char* asked = std::getenv("BIGSMALL_KERNELS_ISA");
  if (asked == nullptr) return most;
  Isa isa = most;
  if (std::strcmp(asked, "portable") == 0) isa = Isa::portable;
  if (std::strcmp(asked, "avx2") == 0) isa = Isa::avx2;
  return isa < most ? isa : most;
}

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name() {
  switch (isa()) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "portable";
  }
}

bool fast_half() {
#ifdef BK_X86
  unsigned a = 0, b = 0, c = 0, d = 0;
  static const bool amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
  return amx;
#else
  return false;
#endif
}

}  // namespace bk
