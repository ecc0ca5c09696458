// hip_on_host.cpp: the HIP functions that attnbench calls, on the processor. For tests only.
//
// With it the whole host path of `--device hip` runs where there is no GPU: the worker and its lanes,
// arguments, launches, faults. Kernels are built by the C++ compiler with the headers of the CPU device
// (MOCK_INCLUDE names their folder) and run one thread after another: those that have no barrier, no
// shuffle and no vote. A wild access is told as CUDA tells it (an error that all later calls give, too),
// or with MOCK_ABORT set as AMD does: the process ends. MOCK_DEVICES is the number of devices.
//
//     g++ -O2 -shared -fPIC hip_on_host.cpp -o libamdhip64.so -ldl && ln -s libamdhip64.so libhiprtc.so

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

typedef unsigned int hipError_t;

namespace {

// An error that every later call gives, too: the context is gone.
hipError_t g_sticky = 0;
std::mutex g_one_kernel;
thread_local sigjmp_buf g_back;
thread_local bool g_in_kernel = false;

void on_fault(int signal) {
    if (!g_in_kernel) {
        std::signal(signal, SIG_DFL);
        raise(signal);
    }
    if (getenv("MOCK_ABORT")) {
        fprintf(stderr, "Memory access fault by GPU node-1 on address 0x1. Reason: a mock.\n");
        abort();
    }
    siglongjmp(g_back, 1);
}

struct Event {
    double at;
};

// What the unit in hiprtcCompileProgram defines (device.h of the CPU device has the same).
struct Thread {
    unsigned *thread, *block, *block_dim, *grid_dim;
};

struct Function {
    void (*call)(const uint64_t *);
    std::vector<uint32_t> sizes;
    Thread at;
};

struct Module {
    void *library;
};

struct Program {
    std::string text, log;
    std::vector<std::string> entries, names;
    std::string code;
};

const char *name_of(hipError_t error) {
    switch (error) {
    case 0: return "hipSuccess";
    case 1: return "hipErrorInvalidValue";
    case 2: return "hipErrorOutOfMemory";
    case 100: return "hipErrorNoDevice";
    case 700: return "hipErrorIllegalAddress";
    default: return "hipErrorUnknown";
    }
}

int devices() {
    const char *count = getenv("MOCK_DEVICES");
    return count ? atoi(count) : 1;
}

}  // namespace

API hipError_t hipGetDeviceCount(int *count) {
    *count = devices();
    return *count > 0 ? 0 : 100;
}
API hipError_t hipSetDevice(int) {
    struct sigaction action = {};
    action.sa_handler = on_fault;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    return g_sticky;
}
API hipError_t hipSetDeviceFlags(unsigned int) { return 0; }
API hipError_t hipRuntimeGetVersion(int *version) { return *version = 50200001, 0; }
API const char *hipGetErrorName(hipError_t error) { return name_of(error); }
API const char *hipGetErrorString(hipError_t error) {
    return error == 700 ? "an illegal memory access was encountered" : name_of(error);
}
API hipError_t hipDeviceGetName(char *name, int bytes, int) {
    snprintf(name, (size_t)bytes, "HIP on the host");
    return 0;
}
API hipError_t hipDeviceTotalMem(size_t *bytes, int) { return *bytes = 1ull << 34, 0; }
API hipError_t hipDeviceGetAttribute(int *value, unsigned int which, int) {
    switch (which) {
    case 26: case 27: case 28: case 56: *value = 1024; return 0;
    case 29: case 30: case 31: *value = 0x7fffffff; return 0;
    case 19: *value = 8 << 20; return 0;
    case 63: *value = 104; return 0;
    case 74: *value = 64 << 10; return 0;
    case 87: *value = 64; return 0;
    default: return 1;
    }
}
// The properties of ROCm 5, of which only the target's name is set.
API hipError_t hipGetDeviceProperties(void *properties, int) {
    std::memset(properties, 0, 792);
    std::strcpy((char *)properties + 496, "gfx90a:sramecc+:xnack-");
    return 0;
}

#ifndef WITHOUT_STREAMS
API hipError_t hipStreamCreateWithFlags(void **stream, unsigned int) {
    return *stream = new int, g_sticky;
}
#endif
API hipError_t hipStreamSynchronize(void *) { return g_sticky; }
API hipError_t hipStreamBeginCapture(void *, unsigned int) { return 1; }
API hipError_t hipStreamEndCapture(void *, void **) { return 1; }
API hipError_t hipGraphInstantiate(void **, void *, void *, char *, size_t) { return 1; }
API hipError_t hipGraphDestroy(void *) { return 1; }
API hipError_t hipGraphExecDestroy(void *) { return 1; }
API hipError_t hipGraphLaunch(void *, void *) { return 1; }

API hipError_t hipMalloc(void **at, size_t bytes) {
    // In addresses of its own, with what nobody may touch around it.
    const size_t guard = 64 << 20, page = 4096;
    const size_t whole = page + (bytes + page - 1) / page * page + 2 * guard;
    char *start = (char *)mmap(
        nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return 2;
    mprotect(start + guard - page, whole - 2 * guard, PROT_READ | PROT_WRITE);
    *(size_t *)(start + guard - page) = whole;
    *at = start + guard;
    return g_sticky;
}
API hipError_t hipFree(void *at) {
    const size_t guard = 64 << 20, page = 4096;
    munmap((char *)at - guard, *(size_t *)((char *)at - page));
    return g_sticky;
}
API hipError_t hipMemset(void *at, int value, size_t bytes) {
    return std::memset(at, value, bytes), g_sticky;
}
API hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, unsigned int, void *) {
    if (!g_sticky) std::memcpy(to, from, bytes);
    return g_sticky;
}
API hipError_t hipHostRegister(void *, size_t, unsigned int) { return g_sticky; }
API hipError_t hipHostUnregister(void *) { return g_sticky; }

API hipError_t hipModuleLoadData(void **module, const void *image) {
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)image;
    const size_t bytes = elf->e_shoff + (size_t)elf->e_shnum * elf->e_shentsize;
    int fd = memfd_create("kernel", 0);
    if (write(fd, image, bytes) != (ssize_t)bytes) return 1;
    std::string path = "/proc/self/fd/" + std::to_string(fd);
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return fprintf(stderr, "mock: %s\n", dlerror()), 1;
    *module = new Module{library};
    return g_sticky;
}
API hipError_t hipModuleGetFunction(void **function, void *module, const char *name) {
    void *library = ((Module *)module)->library;
    auto *own = new Function;
    own->call = (void (*)(const uint64_t *))dlsym(library, name);
    auto *sizes = (const uint32_t *(*)())dlsym(library, (std::string(name) + "_sizes").c_str());
    auto *attach = (void (*)(Thread *))dlsym(library, "mock_attach");
    if (!own->call || !sizes || !attach) return 500;
    const uint32_t *size = sizes();
    for (uint32_t i = 0; i < size[0]; ++i) own->sizes.push_back(size[1 + i]);
    attach(&own->at);
    *function = own;
    return g_sticky;
}
API hipError_t hipFuncGetAttribute(int *value, unsigned int which, void *) {
    *value = which == 0 ? 1024 : 0;
    return g_sticky;
}
API hipError_t hipModuleLaunchKernel(
    void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned, void *, void **args, void **) {
    if (g_sticky) return g_sticky;
    auto *own = (Function *)function;
    std::vector<uint64_t> words;
    for (size_t i = 0; i < own->sizes.size(); ++i) {
        uint64_t word = 0;
        std::memcpy(&word, args[i], own->sizes[i]);
        words.push_back(word);
    }
    // A module has its coordinates once.
    std::lock_guard<std::mutex> lock(g_one_kernel);
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    std::memcpy(own->at.grid_dim, grid, sizeof grid);
    std::memcpy(own->at.block_dim, block, sizeof block);
    if (sigsetjmp(g_back, 1)) {
        g_in_kernel = false;
        return g_sticky = 700, 0;
    }
    g_in_kernel = true;
    for (unsigned z = 0; z < gz; ++z)
        for (unsigned y = 0; y < gy; ++y)
            for (unsigned x = 0; x < gx; ++x)
                for (unsigned t = 0; t < bx * by * bz; ++t) {
                    const unsigned thread[3] = {t % bx, t / bx % by, t / bx / by};
                    const unsigned in_grid[3] = {x, y, z};
                    std::memcpy(own->at.thread, thread, sizeof thread);
                    std::memcpy(own->at.block, in_grid, sizeof in_grid);
                    own->call(words.data());
                }
    g_in_kernel = false;
    return 0;
}

API hipError_t hipEventCreate(void **event) { return *event = new Event{0}, g_sticky; }
API hipError_t hipEventRecord(void *event, void *) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    ((Event *)event)->at = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
    return g_sticky;
}
API hipError_t hipEventElapsedTime(float *milliseconds, void *from, void *to) {
    *milliseconds = (float)(((Event *)to)->at - ((Event *)from)->at);
    return g_sticky;
}

// hiprtc

API unsigned hiprtcVersion(int *major, int *minor) { return *major = 9, *minor = 0, 0; }
API unsigned hiprtcCreateProgram(
    void **program, const char *text, const char *, int, const char **, const char **) {
    auto *own = new Program;
    own->text = text;
    return *program = own, 0;
}
API unsigned hiprtcDestroyProgram(void **) { return 0; }
API unsigned hiprtcAddNameExpression(void *program, const char *name) {
    return ((Program *)program)->entries.push_back(name), 0;
}

// The call of an entry by words, as the runtime has them, and the coordinates.
static const char *UNIT = R"(
#include <utility>
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
// Threads run one after another: who gives way goes on, and there is no barrier to wait at.
attnbench_calls attnbench_host = {nullptr, nullptr, nullptr, [] {}};
uint32_t attnbench_atomics;
extern "C" { __thread char attnbench_dynamic_shared[1024]; }
struct mock_thread { void *thread, *block, *block_dim, *grid_dim; };
extern "C" ATTNBENCH_EXPORT void mock_attach(mock_thread *out) {
    *out = mock_thread{&threadIdx, &blockIdx, &blockDim, &gridDim};
}
template <class T> T mock_word(uint64_t word) {
    T value;
    __builtin_memcpy(&value, &word, sizeof value);
    return value;
}
template <class... P, std::size_t... I>
void mock_call(void (*f)(P...), const uint64_t *words, std::index_sequence<I...>) {
    f(mock_word<P>(words[I])...);
}
template <class... P> void mock_call(void (*f)(P...), const uint64_t *words) {
    mock_call(f, words, std::index_sequence_for<P...>());
}
template <class... P> const uint32_t *mock_sizes(void (*)(P...)) {
    static const uint32_t sizes[] = {sizeof...(P), (uint32_t)sizeof(P)...};
    return sizes;
}
)";

API unsigned hiprtcCompileProgram(void *program, int count, const char **options) {
    auto *own = (Program *)program;
    std::string folder = "/tmp/hip-on-host-XXXXXX";
    if (!mkdtemp(&folder[0])) return 7;
    std::ofstream unit(folder + "/unit.cpp");
    unit << own->text << UNIT;
    for (size_t i = 0; i < own->entries.size(); ++i) {
        std::string name = "mock_entry_" + std::to_string(i);
        unit << "extern \"C\" ATTNBENCH_EXPORT void " << name << "(const uint64_t *words) { mock_call(&"
             << own->entries[i] << ", words); }\n";
        unit << "extern \"C\" ATTNBENCH_EXPORT const uint32_t *" << name
             << "_sizes() { return mock_sizes(&" << own->entries[i] << "); }\n";
        own->names.push_back(name);
    }
    unit.close();
    std::string command = "c++ -std=c++17 -O1 -shared -fPIC -mf16c -mfma -DATTNBENCH_WAVE=64 -w -I";
    command += getenv("MOCK_INCLUDE") ? getenv("MOCK_INCLUDE") : ".";
    for (int i = 0; i < count; ++i) {
        std::string option = options[i];
        // What stands in for the vendor's headers comes after the host's own.
        if (option.find("/include-hip-") != std::string::npos) option.replace(0, 2, "-idirafter");
        if (option[1] == 'I' || option[1] == 'D' || option[1] == 'i') command += " '" + option + "'";
    }
    command += " " + folder + "/unit.cpp -o " + folder + "/kernel.so 2>" + folder + "/log";
    const int status = std::system(command.c_str());
    std::stringstream log, code;
    log << std::ifstream(folder + "/log").rdbuf();
    own->log = log.str();
    code << std::ifstream(folder + "/kernel.so", std::ios::binary).rdbuf();
    own->code = code.str();
    for (const char *file : {"/unit.cpp", "/kernel.so", "/log"}) unlink((folder + file).c_str());
    rmdir(folder.c_str());
    return status == 0 ? 0 : 6;
}
API unsigned hiprtcGetProgramLogSize(void *program, size_t *bytes) {
    return *bytes = ((Program *)program)->log.size() + 1, 0;
}
API unsigned hiprtcGetProgramLog(void *program, char *log) {
    return std::strcpy(log, ((Program *)program)->log.c_str()), 0;
}
API unsigned hiprtcGetLoweredName(void *program, const char *name, const char **lowered) {
    auto *own = (Program *)program;
    for (size_t i = 0; i < own->entries.size(); ++i) {
        if (own->entries[i] == name) return *lowered = own->names[i].c_str(), 0;
    }
    return 10;
}
API unsigned hiprtcGetCodeSize(void *program, size_t *bytes) {
    return *bytes = ((Program *)program)->code.size(), 0;
}
API unsigned hiprtcGetCode(void *program, char *code) {
    auto *own = (Program *)program;
    return std::memcpy(code, own->code.data(), own->code.size()), 0;
}
