"""Compiles a CUDA source to a cubin: python3 nvrtc.py LIBNVRTC.so sm_XX SOURCE.cu OUT.cubin"""

import ctypes
import sys

library, arch, source, out = sys.argv[1:5]
nvrtc = ctypes.CDLL(library)
program = ctypes.c_void_p()
text = open(source, "rb").read()
assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"two.cu", 0, None, None) == 0
options = (ctypes.c_char_p * 1)(b"-arch=" + arch.encode())
failed = nvrtc.nvrtcCompileProgram(program, 1, options)
size = ctypes.c_size_t()
if failed:
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    sys.exit(log.value.decode())
assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
cubin = ctypes.create_string_buffer(size.value)
assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
open(out, "wb").write(cubin.raw)
