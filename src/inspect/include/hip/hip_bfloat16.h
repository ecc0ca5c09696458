// hip_bfloat16.h: the older header of the same type.
#pragma once
#include "hip_bf16.h"
