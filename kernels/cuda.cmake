# SPDX-License-Identifier: Apache-2.0
# The CUDA side of kernels/, included by the preset `cuda`. Code for sm_90a; a worker that links
# it comes when every op has its kernel.
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
target_link_libraries(kernels_cuda PUBLIC base)
