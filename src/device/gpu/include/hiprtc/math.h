// math.h: hiprtc knows its functions already.
#pragma once
