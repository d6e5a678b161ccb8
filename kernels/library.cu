// SPDX-License-Identifier: Apache-2.0
// library.cu -- cuBLASLt behind library.cuh: one handle a process, a table of chosen algorithms.
#include <cublasLt.h>

#include "kernels/device/library.cuh"

extern "C" {
#include "kernels/runtime.h"
}

enum { LIBRARY_SHAPES_MAX = 4096, LIBRARY_PROBES = 8 };

#define LIBRARY_CHECK(call)                                                                        \
    do {                                                                                           \
        cublasStatus_t status_ = (call);                                                           \
        if (status_ != CUBLAS_STATUS_SUCCESS)                                                      \
            DIE("%s: %s", #call, cublasLtGetStatusString(status_));                                \
    } while (0)

struct library_key {
    int tokens, rows, columns, as_float;
    int64_t x_stride;
};

// Column-major as the library sees it: y' [rows, tokens] = W' ^T x'.
struct library_product {
    library_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algorithm;
    bool chosen; // in use
};

static library_product library_products[LIBRARY_SHAPES_MAX];

static cublasLtHandle_t library_handle()
{
    static cublasLtHandle_t handle = NULL;
    if (handle == NULL)
        LIBRARY_CHECK(cublasLtCreate(&handle));
    return handle;
}

void library_open()
{
    library_handle();
}

static void library_describe(library_product *product, const library_key &key)
{
    cublasOperation_t transposed = CUBLAS_OP_T;
    uint64_t rows = static_cast<uint64_t>(key.rows), columns = static_cast<uint64_t>(key.columns);
    uint64_t tokens = static_cast<uint64_t>(key.tokens);
    LIBRARY_CHECK(cublasLtMatmulDescCreate(&product->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LIBRARY_CHECK(cublasLtMatmulDescSetAttribute(product->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                 &transposed, sizeof transposed));
    LIBRARY_CHECK(cublasLtMatrixLayoutCreate(&product->w, CUDA_R_16BF, columns, rows, key.columns));
    LIBRARY_CHECK(
        cublasLtMatrixLayoutCreate(&product->x, CUDA_R_16BF, columns, tokens, key.x_stride));
    LIBRARY_CHECK(cublasLtMatrixLayoutCreate(&product->y, key.as_float ? CUDA_R_32F : CUDA_R_16BF,
                                             rows, tokens, key.rows));
    product->key = key;
    product->chosen = true;
}

static void library_forget(library_product *product)
{
    LIBRARY_CHECK(cublasLtMatrixLayoutDestroy(product->w));
    LIBRARY_CHECK(cublasLtMatrixLayoutDestroy(product->x));
    LIBRARY_CHECK(cublasLtMatrixLayoutDestroy(product->y));
    LIBRARY_CHECK(cublasLtMatmulDescDestroy(product->operation));
    product->chosen = false;
}

// The library's first choice for a described product.
static void library_choose(library_product *product)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace_bytes = 0;
    int found = 0;
    LIBRARY_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    LIBRARY_CHECK(cublasLtMatmulPreferenceSetAttribute(preference,
                                                       CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                       &workspace_bytes, sizeof workspace_bytes));
    LIBRARY_CHECK(cublasLtMatmulAlgoGetHeuristic(library_handle(), product->operation, product->w,
                                                 product->x, product->y, product->y, preference, 1,
                                                 &result, &found));
    LIBRARY_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (found == 0) {
        DIE("cuBLASLt has no algorithm for %d tokens, %d x %d", product->key.tokens,
            product->key.rows, product->key.columns);
    }
    product->algorithm = result.algo;
}

// Whether the product's algorithm serves it without a workspace.
static bool library_allows(const library_product *product)
{
    cublasLtMatmulHeuristicResult_t result;
    return cublasLtMatmulAlgoCheck(library_handle(), product->operation, product->w, product->x,
                                   product->y, product->y, &product->algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize == 0;
}

// FNV-1a over the key's bytes; padding is zero.
static uint32_t library_hash(const library_key &key)
{
    const uint8_t *bytes = reinterpret_cast<const uint8_t *>(&key);
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof key; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

// A shape lies in one of LIBRARY_PROBES places from its hash on; when they are taken, the first
// makes room: eager steps have any number of tokens. The place may be a free one.
static library_product *library_place(const library_key &key)
{
    uint32_t hash = library_hash(key);
    library_product *free_one = NULL;
    for (uint32_t i = 0; i < LIBRARY_PROBES; i++) {
        library_product *at = &library_products[(hash + i) % LIBRARY_SHAPES_MAX];
        if (at->chosen && memcmp(&at->key, &key, sizeof key) == 0)
            return at;
        if (free_one == NULL && !at->chosen)
            free_one = at;
    }
    if (free_one == NULL) {
        free_one = &library_products[hash % LIBRARY_SHAPES_MAX];
        library_forget(free_one);
    }
    return free_one;
}

// The algorithm is that of the bucket which the tokens fall in: an algorithm that is new loads its
// code, which holds up the device for up to tens of milliseconds in the midst of serving.
static const library_product *library_find(const library_key &key)
{
    library_product *product = library_place(key);
    if (product->chosen)
        return product;
    library_key bucket = key;
    bucket.tokens = runtime_tokens_bucket(key.tokens);
    if (bucket.tokens == key.tokens) {
        library_describe(product, key);
        library_choose(product);
        return product;
    }
    cublasLtMatmulAlgo_t algorithm = library_find(bucket)->algorithm;
    product = library_place(key);
    library_describe(product, key);
    product->algorithm = algorithm;
    if (!library_allows(product))
        library_choose(product);
    return product;
}

bool library_serves(const linear_shape &shape)
{
    return shape.columns % 8 == 0 && shape.x_stride % 8 == 0;
}

void library_linear(cudaStream_t stream, const linear_shape &shape)
{
    library_key key;
    memset(&key, 0, sizeof key);
    key.tokens = shape.tokens;
    key.rows = shape.rows;
    key.columns = shape.columns;
    key.as_float = shape.y == NULL;
    key.x_stride = shape.x_stride;
    const library_product *product = library_find(key);
    const float one = 1, zero = 0;
    void *y = shape.y != NULL ? static_cast<void *>(shape.y) : static_cast<void *>(shape.y_float);
    LIBRARY_CHECK(cublasLtMatmul(library_handle(), product->operation, &one, shape.w, product->w,
                                 shape.x, product->x, &zero, y, product->y, y, product->y,
                                 &product->algorithm, NULL, 0, stream));
}
