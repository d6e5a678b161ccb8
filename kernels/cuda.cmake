# SPDX-License-Identifier: Apache-2.0
# The CUDA side, included by the preset `cuda`: the kernels, and the worker that links them. Code
# for sm_90a.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a)
endif()
find_program(NVCC nvcc HINTS /usr/local/cuda/bin)
if(NOT CMAKE_CUDA_COMPILER AND NVCC)
  set(CMAKE_CUDA_COMPILER ${NVCC})
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
file(GLOB cuda_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} kernels/*.cu)
add_library(kernels_cuda STATIC ${cuda_sources})
target_compile_options(kernels_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Werror=all-warnings -Xptxas=--warn-on-spills>)
find_library(CUBLASLT cublasLt HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} /usr/local/cuda/lib64
             REQUIRED)
target_link_libraries(kernels_cuda PUBLIC base ${CUBLASLT})
find_library(CUDART cudart_static HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} REQUIRED)

library(group_cuda GLOBS parallel/group_nccl.c LINKS kernels_cuda model base)
library(worker_cuda GLOBS worker/*.c EXCEPT "worker/main.c"
        LINKS group_cuda kernels_cuda model wire base)
program(deltamesh-worker-cuda worker/main.c worker_cuda)
set_target_properties(deltamesh-worker-cuda PROPERTIES LINKER_LANGUAGE CUDA)
