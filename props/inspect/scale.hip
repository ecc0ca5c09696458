// A kernel with a matrix instruction and static LDS, for the fixture scale.hsaco.
typedef float float4_ __attribute__((ext_vector_type(4)));
typedef _Float16 half4_ __attribute__((ext_vector_type(4)));
extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, 256)))
void scale(const float4_ *in, float4_ *out, float by) {
    static __attribute__((shared)) float4_ tile[256];
    const int i = __builtin_amdgcn_workitem_id_x();
    tile[i] = in[i];
    __builtin_amdgcn_s_barrier();
    half4_ h = {(_Float16)by, 1, 1, 1};
    out[i] = __builtin_amdgcn_mfma_f32_16x16x16f16(h, h, tile[255 - i], 0, 0, 0);
}
