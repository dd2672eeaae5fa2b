#include "isa.h"

#ifdef BK_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <cstring>

namespace bk {

// Whether the processor multiplies tiles of bfloat16, rounds to it, and the system lets this process use tiles.
static bool has_amx() {
#ifdef BK_AMX
  constexpr unsigned kTileAndBfloat16 = 1u << 24 | 1u << 22, kRounding = 1u << 5;
  constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of arch_prctl
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTileAndBfloat16) != kTileAndBfloat16) return false;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & kRounding)) return false;
  return syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
#else
  return false;
#endif
}

static Isa best() {
#ifdef BK_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vbmi")) return Isa::avx512;
    return has_amx() ? Isa::amx : Isa::avx512_vnni;
  }
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
  if (std::strcmp(asked, "avx512") == 0) isa = Isa::avx512;
  if (std::strcmp(asked, "avx512_vnni") == 0) isa = Isa::avx512_vnni;
  return isa < most ? isa : most;
}

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name() {
  switch (isa()) {
    case Isa::amx: return "amx";
    case Isa::avx512_vnni: return "avx512_vnni";
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "portable";
  }
}

}  // namespace bk
