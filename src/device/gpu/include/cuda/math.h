// math.h: NVRTC knows its functions already.
#pragma once
