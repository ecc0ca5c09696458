// assert.h: NVRTC knows assert already.
#pragma once
