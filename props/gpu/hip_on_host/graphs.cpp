// graphs.cpp: hip_on_host.cpp with graphs, for tests only. What a stream is asked for while a thread captures
// it is kept, not done, and done whenever the graph is launched.
//
// MOCK_L2 is the last-level cache, bytes; MOCK_MEMORY what all allocations together may have, bytes. A launch
// of blocks of 1000 threads is one for which resources are lacking (701).

#define hipModuleLaunchKernel launch_at_once
#define hipStreamBeginCapture no_begin
#define hipStreamEndCapture no_end
#define hipGraphInstantiate no_graph
#define hipGraphDestroy no_graph_to_destroy
#define hipGraphExecDestroy no_exec_to_destroy
#define hipGraphLaunch no_graph_to_launch
#define hipDeviceGetAttribute attribute_of_a_device
#define hipEventRecord wall_clock
#define hipMalloc take
#define hipFree give_back
#include "hip_on_host.cpp"
#undef hipModuleLaunchKernel
#undef hipStreamBeginCapture
#undef hipStreamEndCapture
#undef hipGraphInstantiate
#undef hipGraphDestroy
#undef hipGraphExecDestroy
#undef hipGraphLaunch
#undef hipDeviceGetAttribute
#undef hipEventRecord
#undef hipMalloc
#undef hipFree

#include <map>

namespace {

struct Node {
    void *function;
    unsigned grid[3], block[3];
    std::vector<uint64_t> words;
};

struct Graph {
    std::vector<Node> nodes;
};

thread_local Graph *g_captured = nullptr;
std::mutex g_memory;
std::map<void *, size_t> g_taken;

}  // namespace

API hipError_t hipDeviceGetAttribute(int *value, unsigned int which, int device) {
    const char *cache = getenv("MOCK_L2");
    if (which == 19 && cache) return *value = atoi(cache), 0;
    return attribute_of_a_device(value, which, device);
}

API hipError_t hipMalloc(void **at, size_t bytes) {
    std::lock_guard<std::mutex> lock(g_memory);
    size_t all = bytes;
    for (auto &taken : g_taken) all += taken.second;
    const char *most = getenv("MOCK_MEMORY");
    if (most && all > (size_t)atoll(most)) return 2;
    const hipError_t error = take(at, bytes);
    if (error == 0) g_taken[*at] = bytes;
    return error;
}
API hipError_t hipFree(void *at) {
    std::lock_guard<std::mutex> lock(g_memory);
    if (g_taken.erase(at) == 0) return 1;
    return give_back(at);
}

// Launches run in the thread that asks for them: its own time is theirs, whatever else the machine does.
API hipError_t hipEventRecord(void *event, void *) {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    ((Event *)event)->at = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
    return g_sticky;
}

API hipError_t hipModuleLaunchKernel(
    void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, void *stream, void **args, void **none) {
    if (bx == 1000) return 701;
    if (!g_captured) {
        return launch_at_once(function, gx, gy, gz, bx, by, bz, shared, stream, args, none);
    }
    Node node{function, {gx, gy, gz}, {bx, by, bz}, {}};
    for (uint32_t size : ((Function *)function)->sizes) {
        uint64_t word = 0;
        std::memcpy(&word, args[node.words.size()], size);
        node.words.push_back(word);
    }
    return g_captured->nodes.push_back(node), 0;
}

API hipError_t hipStreamBeginCapture(void *, unsigned int) {
    if (g_captured) return 1;
    return g_captured = new Graph, g_sticky;
}
API hipError_t hipStreamEndCapture(void *, void **graph) {
    *graph = g_captured;
    g_captured = nullptr;
    return *graph ? g_sticky : 1;
}
API hipError_t hipGraphInstantiate(void **exec, void *graph, void *, char *, size_t) {
    return *exec = new Graph(*(Graph *)graph), g_sticky;
}
API hipError_t hipGraphDestroy(void *graph) { return delete (Graph *)graph, g_sticky; }
API hipError_t hipGraphExecDestroy(void *exec) { return delete (Graph *)exec, g_sticky; }
API hipError_t hipGraphLaunch(void *exec, void *stream) {
    for (Node &node : ((Graph *)exec)->nodes) {
        std::vector<void *> args;
        for (uint64_t &word : node.words) args.push_back(&word);
        const unsigned *g = node.grid, *b = node.block;
        const hipError_t error = launch_at_once(
            node.function, g[0], g[1], g[2], b[0], b[1], b[2], 0, stream, args.data(), nullptr);
        if (error) return error;
    }
    return g_sticky;
}
