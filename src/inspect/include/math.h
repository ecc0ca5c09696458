// math.h, for sources that include it: the device's functions, not the host's.
#pragma once
#include "attnbench/math.h"
