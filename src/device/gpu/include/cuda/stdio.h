// stdio.h: NVRTC knows printf already.
#pragma once
