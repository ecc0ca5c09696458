// hip_runtime.h: hiprtc has included its own before the first line of a source.
#pragma once
#ifndef INFINITY
#define INFINITY __builtin_inff()
#endif
#ifndef NAN
#define NAN __builtin_nanf("")
#endif
