// The CPU kernels' portable path without torch, against plain loops in double: on random data and odd sizes, between and in
// memory full of NaN. Prints the worst error of each kernel, max|y - y64| / max|y64|; beyond 1e-5 it fails.
#include "check.h"

int main() {
  check_blocks();
  check_convolutions();
  check_normalisers();
  check_inputs();
  return failed ? 1 : 0;
}
