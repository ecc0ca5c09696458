// hip_on_cuda.cpp: the HIP functions that attnbench calls, on CUDA's driver and NVRTC. For tests only.
//
// With it `--device hip` runs its whole host path on an NVIDIA GPU, where no AMD GPU is at hand:
// arguments, launches, events, graphs, faults. Built as one shared library under two names:
//
//     g++ -O2 -shared -fPIC -I$CUDA_HOME/include hip_on_cuda.cpp -o libamdhip64.so
//         -L$CUDA_HOME/lib64 -lcuda -lnvrtc
//     ln -s libamdhip64.so libhiprtc.so
//
// ATTNBENCH_CUDA_INCLUDE names the folder of HIP's headers for NVRTC (src/device/gpu/include/cuda) and,
// after a colon, those of CUDA. Numbers of errors and attributes are HIP's own (hip_runtime_api.h).

#include <cuda.h>
#include <nvrtc.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

typedef unsigned int hipError_t;

namespace {

// HIP's numbers are those of CUDA's runtime, and so are most of the driver's.
hipError_t hip(CUresult result) { return (hipError_t)result; }

struct Device {
    CUdevice device = 0;
    CUcontext context = nullptr;
};
Device g_device;
std::mutex g_mutex;

hipError_t current() {
    if (!g_device.context) return 101;
    return hip(cuCtxSetCurrent(g_device.context));
}

int attribute(CUdevice_attribute which) {
    int value = 0;
    cuDeviceGetAttribute(&value, which, g_device.device);
    return value;
}

}  // namespace

API hipError_t hipGetDeviceCount(int *count) {
    *count = 0;
    if (cuInit(0) != CUDA_SUCCESS) return 100;
    if (cuDeviceGetCount(count) != CUDA_SUCCESS || *count == 0) return 100;
    return 0;
}

API hipError_t hipSetDevice(int ordinal) {
    std::lock_guard<std::mutex> lock(g_mutex);
    if (!g_device.context) {
        CUresult result = cuDeviceGet(&g_device.device, ordinal);
        if (result != CUDA_SUCCESS) return 101;
        cuDevicePrimaryCtxSetFlags(g_device.device, CU_CTX_SCHED_BLOCKING_SYNC);
        result = cuDevicePrimaryCtxRetain(&g_device.context, g_device.device);
        if (result != CUDA_SUCCESS) return hip(result);
    }
    return current();
}

API hipError_t hipSetDeviceFlags(unsigned int) { return 0; }

API hipError_t hipRuntimeGetVersion(int *version) {
    int cuda = 0;
    cuDriverGetVersion(&cuda);
    *version = 5 * 10000000 + 2 * 100000 + cuda;  // as of ROCm 5.2, on this CUDA
    return 0;
}

API const char *hipGetErrorName(hipError_t error) {
    const char *text = nullptr;
    cuGetErrorName((CUresult)error, &text);
    return text ? text : "hipErrorUnknown";
}

API const char *hipGetErrorString(hipError_t error) {
    const char *text = nullptr;
    cuGetErrorString((CUresult)error, &text);
    return text ? text : "unknown error";
}

API hipError_t hipDeviceGetName(char *name, int bytes, int) {
    char own[200] = "";
    CUresult result = cuDeviceGetName(own, sizeof own, g_device.device);
    snprintf(name, (size_t)bytes, "%s through HIP on CUDA", own);
    return hip(result);
}

API hipError_t hipDeviceTotalMem(size_t *bytes, int) {
    return hip(cuDeviceTotalMem(bytes, g_device.device));
}

API hipError_t hipDeviceGetAttribute(int *value, unsigned int which, int) {
    switch (which) {
    case 19: *value = attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE); return 0;
    case 26: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X); return 0;
    case 27: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y); return 0;
    case 28: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z); return 0;
    case 29: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X); return 0;
    case 30: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y); return 0;
    case 31: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z); return 0;
    case 56: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK); return 0;
    case 63: *value = attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT); return 0;
    case 74: *value = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN); return 0;
    case 87: *value = attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE); return 0;
    default: return 1;
    }
}

// The properties of ROCm 6, of which only the target's name is set, where that version has it.
API hipError_t hipGetDevicePropertiesR0600(void *properties, int) {
    std::memset(properties, 0, 1472);
    std::strcpy((char *)properties + 1160, "gfx90a:sramecc+:xnack-");
    return 0;
}

API hipError_t hipStreamCreateWithFlags(CUstream *stream, unsigned int flags) {
    return hip(cuStreamCreate(stream, flags));
}
API hipError_t hipStreamSynchronize(CUstream stream) { return hip(cuStreamSynchronize(stream)); }
API hipError_t hipStreamBeginCapture(CUstream stream, unsigned int mode) {
    return hip(cuStreamBeginCapture(stream, (CUstreamCaptureMode)mode));
}
API hipError_t hipStreamEndCapture(CUstream stream, CUgraph *graph) {
    return hip(cuStreamEndCapture(stream, graph));
}
API hipError_t hipGraphInstantiate(CUgraphExec *exec, CUgraph graph, void *, char *, size_t) {
    return hip(cuGraphInstantiateWithFlags(exec, graph, 0));
}
API hipError_t hipGraphDestroy(CUgraph graph) { return hip(cuGraphDestroy(graph)); }
API hipError_t hipGraphExecDestroy(CUgraphExec exec) { return hip(cuGraphExecDestroy(exec)); }
API hipError_t hipGraphLaunch(CUgraphExec exec, CUstream stream) {
    return hip(cuGraphLaunch(exec, stream));
}

API hipError_t hipMalloc(void **at, size_t bytes) {
    return hip(cuMemAlloc((CUdeviceptr *)at, bytes));
}
API hipError_t hipFree(void *at) { return hip(cuMemFree((CUdeviceptr)at)); }
API hipError_t hipMemset(void *at, int value, size_t bytes) {
    return hip(cuMemsetD8((CUdeviceptr)at, (unsigned char)value, bytes));
}
API hipError_t hipMemcpyAsync(
    void *to, const void *from, size_t bytes, unsigned int kind, CUstream stream) {
    switch (kind) {
    case 1: return hip(cuMemcpyHtoDAsync((CUdeviceptr)to, from, bytes, stream));
    case 2: return hip(cuMemcpyDtoHAsync(to, (CUdeviceptr)from, bytes, stream));
    case 3: return hip(cuMemcpyDtoDAsync((CUdeviceptr)to, (CUdeviceptr)from, bytes, stream));
    default: return 1;
    }
}
API hipError_t hipHostRegister(void *at, size_t bytes, unsigned int flags) {
    return hip(cuMemHostRegister(at, bytes, flags));
}
API hipError_t hipHostUnregister(void *at) { return hip(cuMemHostUnregister(at)); }

API hipError_t hipModuleLoadData(CUmodule *module, const void *image) {
    return hip(cuModuleLoadData(module, image));
}
API hipError_t hipModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    return hip(cuModuleGetFunction(function, module, name));
}
API hipError_t hipFuncGetAttribute(int *value, unsigned int which, CUfunction function) {
    if (which == 0) {
        return hip(cuFuncGetAttribute(value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function));
    }
    if (which == 1) {
        return hip(cuFuncGetAttribute(value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function));
    }
    return 1;
}
API hipError_t hipModuleLaunchKernel(
    CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
    unsigned bz, unsigned shared, CUstream stream, void **args, void **extra) {
    // AMD's launches have what the block's limit allows, without being asked.
    if (shared > 48 * 1024) {
        CUresult result = cuFuncSetAttribute(
            function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared);
        if (result != CUDA_SUCCESS) return hip(result);
    }
    return hip(cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, args, extra));
}

API hipError_t hipEventCreate(CUevent *event) { return hip(cuEventCreate(event, 0)); }
API hipError_t hipEventRecord(CUevent event, CUstream stream) {
    return hip(cuEventRecord(event, stream));
}
API hipError_t hipEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
    return hip(cuEventElapsedTime(milliseconds, from, to));
}

// hiprtc: the same calls as NVRTC has, with an AMD target that stands for this GPU's.

API unsigned int hiprtcVersion(int *major, int *minor) { return nvrtcVersion(major, minor); }
API unsigned int hiprtcCreateProgram(
    nvrtcProgram *program, const char *text, const char *name, int, const char **, const char **) {
    return nvrtcCreateProgram(program, text, name, 0, nullptr, nullptr);
}
API unsigned int hiprtcDestroyProgram(nvrtcProgram *program) {
    return nvrtcDestroyProgram(program);
}
API unsigned int hiprtcAddNameExpression(nvrtcProgram program, const char *name) {
    return nvrtcAddNameExpression(program, name);
}
API unsigned int hiprtcCompileProgram(nvrtcProgram program, int count, const char **options) {
    std::vector<std::string> own = {"-default-device"};
    // In front: HIP's headers for NVRTC, and CUDA's own.
    std::string folders = getenv("ATTNBENCH_CUDA_INCLUDE") ? getenv("ATTNBENCH_CUDA_INCLUDE") : "";
    for (size_t at = 0; at < folders.size();) {
        size_t end = folders.find(':', at);
        if (end == std::string::npos) end = folders.size();
        own.push_back("-I" + folders.substr(at, end - at));
        at = end + 1;
    }
    for (int i = 0; i < count; ++i) {
        std::string option = options[i];
        if (option.rfind("--offload-arch=", 0) == 0) {
            CUdevice device = 0;
            int major = 9, minor = 0;
            if (cuInit(0) == CUDA_SUCCESS && cuDeviceGet(&device, 0) == CUDA_SUCCESS) {
                cuDeviceGetAttribute(
                    &major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
                cuDeviceGetAttribute(
                    &minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
            }
            option = "--gpu-architecture=sm_" + std::to_string(major) + std::to_string(minor);
        } else if (option.rfind("-std=", 0) == 0) {
            option = "-" + option;
        } else if (option.rfind("-O", 0) == 0) {
            continue;
        }
        own.push_back(option);
    }
    std::vector<const char *> list;
    for (const std::string &option : own) list.push_back(option.c_str());
    return nvrtcCompileProgram(program, (int)list.size(), list.data());
}
API unsigned int hiprtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
    return nvrtcGetProgramLogSize(program, bytes);
}
API unsigned int hiprtcGetProgramLog(nvrtcProgram program, char *log) {
    return nvrtcGetProgramLog(program, log);
}
API unsigned int hiprtcGetLoweredName(
    nvrtcProgram program, const char *name, const char **lowered) {
    return nvrtcGetLoweredName(program, name, lowered);
}
API unsigned int hiprtcGetCodeSize(nvrtcProgram program, size_t *bytes) {
    return nvrtcGetCUBINSize(program, bytes);
}
API unsigned int hiprtcGetCode(nvrtcProgram program, char *code) {
    return nvrtcGetCUBIN(program, code);
}
