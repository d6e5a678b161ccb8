# SPDX-License-Identifier: Apache-2.0
# Run by every build: cmake -DSOURCE=DIR -DVERSION=V -DOUT=FILE -P version.cmake. Writes the header
# of version.c with the build's name, V or V+commit. A file that says so already stays untouched, so
# that only a new commit compiles anything.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short HEAD
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(name ${VERSION})
if(commit)
  set(name ${VERSION}+${commit})
endif()
set(text "#define DELTAMESH_BUILD \"${name}\"\n")
set(old "")
if(EXISTS ${OUT})
  file(READ ${OUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUT} "${text}")
endif()
