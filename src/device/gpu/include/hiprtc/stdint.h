// stdint.h: hiprtc has some of these types already, and the system's header has others of their names.
#pragma once
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long intptr_t;
typedef unsigned long uintptr_t;
// Up to ROCm 6 hiprtc has these, of a type that changed between its versions.
#if !defined(HIP_VERSION_MAJOR) || HIP_VERSION_MAJOR >= 7
typedef long int64_t;
typedef unsigned long uint64_t;
#endif
