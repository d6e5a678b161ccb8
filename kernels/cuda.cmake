# SPDX-License-Identifier: Apache-2.0
# The CUDA side, included by the preset `cuda`: the kernels, and the worker that links them. Code
# for sm_90a; others by -DCMAKE_CUDA_ARCHITECTURES="80-real;90a-real": they run the kernels that
# are plain CUDA (kernels/device/sm90.cuh).
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a)
endif()
foreach(architecture ${CMAKE_CUDA_ARCHITECTURES})
  if(NOT architecture MATCHES "^(90a(-real)?|[0-9]+[af]?-real)$" OR architecture MATCHES "^9[0-9]-")
    message(FATAL_ERROR "CMAKE_CUDA_ARCHITECTURES: ${architecture}; 90a is served on Hopper, on "
      "other GPUs code of their own, such as 80-real: code for 90, or made from PTX by the driver, "
      "lacks the instructions that Hopper is chosen for")
  endif()
endforeach()
find_program(NVCC nvcc HINTS /usr/local/cuda/bin)
if(NOT CMAKE_CUDA_COMPILER AND NVCC)
  set(CMAKE_CUDA_COMPILER ${NVCC})
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
file(GLOB cuda_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} kernels/*.cu)
add_library(kernels_cuda STATIC ${cuda_sources})
target_compile_options(kernels_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Werror=all-warnings>)
# What the kernels' sizes are chosen for; pauses take registers.
if(CMAKE_CUDA_ARCHITECTURES STREQUAL 90a AND NOT DELTAMESH_JITTER)
  target_compile_options(kernels_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=--warn-on-spills>)
endif()
if(DELTAMESH_JITTER)
  target_compile_definitions(kernels_cuda PRIVATE DELTAMESH_JITTER)
endif()
find_library(CUBLASLT cublasLt HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} /usr/local/cuda/lib64
             REQUIRED)
target_link_libraries(kernels_cuda PUBLIC base ${CUBLASLT})
find_library(CUDART cudart_static HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} REQUIRED)

# NCCL's headers say whether groups of several GPUs are built; the library is loaded by whoever is
# in such a group. From the toolkit, the system, or the Python package nvidia-nccl.
execute_process(COMMAND python3 -c "import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])"
  OUTPUT_VARIABLE NCCL_PYTHON OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_path(NCCL_INCLUDE nccl_device.h
  HINTS ${NCCL_PYTHON}/include ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
find_file(NCCL_LIBRARY libnccl.so.2
  HINTS ${NCCL_PYTHON}/lib ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} /usr/lib/x86_64-linux-gnu)
library(group_cuda GLOBS parallel/group_nccl.c parallel/exchange_host.c kernels/exchange_cpu.c
        LINKS kernels_cuda model base rt ${CMAKE_DL_LIBS})
if(NCCL_INCLUDE)
  file(GLOB exchange_cuda CONFIGURE_DEPENDS parallel/exchange_cuda.c)
  target_sources(group_cuda PRIVATE ${exchange_cuda})
  foreach(target group_cuda kernels_cuda)
    target_compile_definitions(${target} PRIVATE DELTAMESH_NCCL="${NCCL_LIBRARY}")
    target_include_directories(${target} SYSTEM PRIVATE
      ${NCCL_INCLUDE} ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  endforeach()
endif()
library(worker_cuda GLOBS worker/*.c EXCEPT "worker/main.c"
        LINKS group_cuda kernels_cuda model wire base)
program(deltamesh-worker-cuda worker/main.c worker_cuda)
set_target_properties(deltamesh-worker-cuda PROPERTIES LINKER_LANGUAGE CUDA)
