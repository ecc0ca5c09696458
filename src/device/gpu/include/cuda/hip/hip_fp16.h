// hip_fp16.h: __half and __half2, which CUDA names alike.
#pragma once
#include "hip_runtime.h"
#include <cuda_fp16.h>
