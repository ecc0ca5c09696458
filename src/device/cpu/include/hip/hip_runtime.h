// hip_runtime.h: the device side of HIP, for kernels compiled by a C++ compiler for the host.
#pragma once
#ifndef __HIP_PLATFORM_AMD__
#define __HIP_PLATFORM_AMD__ 1
#endif
#define __HIP_DEVICE_COMPILE__ 1
#define __HIPCC__ 1
#define __HIP__ 1
#define __AMDGCN_WAVEFRONT_SIZE ATTNBENCH_WAVE
#define __AMDGCN_WAVEFRONT_SIZE__ ATTNBENCH_WAVE

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../attnbench/device.h"
#include "../attnbench/vector_types.h"
#include "../attnbench/wave.h"
#include "../attnbench/math.h"
#include "../attnbench/atomics.h"

// After the system's own headers, which spell an attribute so.
#define __noinline__ __attribute__((noinline))

#ifndef HIP_INF_F
#define HIP_INF_F INFINITY
#define HIP_NAN_F NAN
#endif
