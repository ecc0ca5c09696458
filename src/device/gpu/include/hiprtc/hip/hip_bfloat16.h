// hip_bfloat16.h: hiprtc has included its own before the first line of a source.
#pragma once
#include "hip_bf16.h"
