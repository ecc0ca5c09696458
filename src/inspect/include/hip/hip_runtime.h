// hip_runtime.h: the device side of HIP, for kernels built for AMD targets without ROCm.
#pragma once
#ifndef __HIP_PLATFORM_AMD__
#define __HIP_PLATFORM_AMD__ 1
#endif
#ifndef __HIPCC__
#define __HIPCC__ 1
#endif
#ifndef __AMDGCN_WAVEFRONT_SIZE
#define __AMDGCN_WAVEFRONT_SIZE ATTNBENCH_WAVE
#endif
#ifndef __AMDGCN_WAVEFRONT_SIZE__
#define __AMDGCN_WAVEFRONT_SIZE__ ATTNBENCH_WAVE
#endif

#include "../attnbench/device.h"
#pragma clang force_cuda_host_device begin
#include "../attnbench/vector_types.h"
#pragma clang force_cuda_host_device end
#include "../attnbench/wave.h"
#include "../attnbench/math.h"
#include "../attnbench/atomics.h"

#ifndef HIP_INF_F
#define HIP_INF_F INFINITY
#define HIP_NAN_F NAN
#endif
