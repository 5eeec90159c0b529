// What our kernels use of torch's C interface for compiled code, which is stable. Its own header, aoti_torch/c/shim.h,
// takes a compiler two seconds to read.

#pragma once

#include <stdint.h>

typedef int32_t AOTITorchError;
typedef struct AtenTensorOpaque* AtenTensorHandle;

extern "C" {
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** data);
AOTITorchError aoti_torch_get_size(AtenTensorHandle tensor, int64_t axis, int64_t* size);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* dtype);
AOTITorchError aoti_torch_empty_strided(int64_t axes, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                        int32_t device_type, int32_t device_index, AtenTensorHandle* tensor);
int32_t aoti_torch_device_type_cpu();
int32_t aoti_torch_dtype_float32();
int32_t aoti_torch_dtype_bfloat16();
}

constexpr AOTITorchError SUCCESS = 0, FAILURE = 1;

#define TRY(call) \
    if ((call) != SUCCESS) return FAILURE
