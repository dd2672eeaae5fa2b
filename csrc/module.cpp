// Module init and build information; the ops register themselves with torch's dispatcher.
#include <Python.h>

#include <cstdint>
#include <cstring>

#include "cpu/isa.h"

namespace {

PyObject* isa(PyObject*, PyObject*) { return PyUnicode_FromString(bk::isa_name()); }

// A checksum of the bytes of [(address, size), ...]: eight interleaved multiplicative hashes.
PyObject* checksum(PyObject*, PyObject* pieces) {
  uint64_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  constexpr uint64_t prime = 0x9E3779B97F4A7C15ull;
  const Py_ssize_t n = PyList_Size(pieces);
  if (n < 0) return nullptr;
  for (Py_ssize_t i = 0; i < n; ++i) {
    unsigned long long address = 0, size = 0;
    if (!PyArg_ParseTuple(PyList_GetItem(pieces, i), "KK", &address, &size)) return nullptr;
    if (address == 0 && size > 0) {
      PyErr_SetString(PyExc_ValueError, "checksum of no data");
      return nullptr;
    }
    const char* p = reinterpret_cast<const char*>(static_cast<uintptr_t>(address));
    uint64_t words[8];
    const auto add = [&] {
      for (int j = 0; j < 8; ++j) h[j] = (h[j] ^ words[j]) * prime + (h[j] >> 32);
    };
    for (; size >= sizeof(words); p += sizeof(words), size -= sizeof(words)) {
      std::memcpy(words, p, sizeof(words));
      add();
    }
    if (size > 0) {
      std::memset(words, 0, sizeof(words));
      std::memcpy(words, p, size);
      add();
    }
  }
  uint64_t all = 0;
  for (int j = 0; j < 8; ++j) all = (all ^ h[j]) * prime + (all >> 29);
  return PyLong_FromUnsignedLongLong(all);
}

PyMethodDef methods[] = {
    {"isa", isa, METH_NOARGS, "The instruction set the CPU kernels run on."},
    {"checksum", checksum, METH_O, "A checksum of the bytes of [(address, size), ...]."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C(void) { return PyModule_Create(&module); }
