# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` brings: the programs side by side, and the client library for programs of
# one's own: libdeltamesh-client.so with the functions of client.h and of the headers that it needs,
# found by `pkg-config deltamesh-client`. Nothing else is exported (exports.map), so that our names
# and a program's cannot meet.
include(GNUInstallDirs)

file(GLOB client_sources CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/deploy/client/*.c ${CMAKE_SOURCE_DIR}/parallel/wire/*.c
  ${CMAKE_SOURCE_DIR}/parallel/base/*.c)
list(FILTER client_sources EXCLUDE REGEX "version.c$") # of the programs alone
set(client_exports ${CMAKE_SOURCE_DIR}/deploy/client/exports.map)
add_library(deltamesh-client SHARED ${client_sources})
target_link_libraries(deltamesh-client
  PRIVATE PkgConfig::ZMQ PkgConfig::MSGPACK Threads::Threads m
          "-Wl,--version-script=${client_exports}")
set_target_properties(deltamesh-client PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${client_exports})

configure_file(deploy/client/deltamesh-client.pc.in deltamesh-client.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/deltamesh-client.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(TARGETS deltamesh-client LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
foreach(header
    deploy/client/client.h parallel/base/status.h parallel/wire/requests.h parallel/wire/messages.h
    parallel/wire/step_limits.h)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/deltamesh/${folder})
endforeach()
install(FILES deploy/client/deltamesh.py DESTINATION ${CMAKE_INSTALL_DATADIR}/deltamesh)
foreach(name deltamesh deltamesh-coordinator deltamesh-worker-cpu)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endforeach()
if(DELTAMESH_CUDA)
  install(PROGRAMS ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/deltamesh-worker-cuda
    DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
