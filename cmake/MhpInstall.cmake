# libmhcpipe, made of the folders' libraries, and what installs with it.
include(CMakePackageConfigHelpers)

set(mhp_folders core scheduler model comm runtime)
add_library(libmhcpipe SHARED)
foreach(folder ${mhp_folders})
    target_sources(libmhcpipe PRIVATE $<TARGET_OBJECTS:mhp_${folder}>)
endforeach()
set_target_properties(libmhcpipe PROPERTIES OUTPUT_NAME mhcpipe EXPORT_NAME mhcpipe VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(libmhcpipe PRIVATE mhp_flags ${MHP_LIBRARIES} ${MHP_CUDA_LIBRARIES})
if(MHP_CUDA_FOUND)      # CUDA's libraries often lie where the loader does not look; cuDNN's front end is C++
    set_target_properties(libmhcpipe PROPERTIES LINKER_LANGUAGE CXX INSTALL_RPATH_USE_LINK_PATH ON)
else()
    set_target_properties(libmhcpipe PROPERTIES LINKER_LANGUAGE C)
endif()
target_include_directories(libmhcpipe INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/mhcpipe>)

install(TARGETS libmhcpipe EXPORT mhcpipe-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS mhcpipe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(folder ${mhp_folders})
    install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mhcpipe
        FILES_MATCHING PATTERN "*.h" PATTERN "*_internal.h" EXCLUDE PATTERN cpu EXCLUDE PATTERN cuda EXCLUDE PATTERN mpi EXCLUDE PATTERN ipc EXCLUDE PATTERN nccl EXCLUDE PATTERN device EXCLUDE)
endforeach()
install(PROGRAMS ${PROJECT_SOURCE_DIR}/launch/cluster/mpirun.sh ${PROJECT_SOURCE_DIR}/launch/cluster/slurm.sh
    DESTINATION ${CMAKE_INSTALL_DATADIR}/mhcpipe/cluster)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/launch/examples DESTINATION ${CMAKE_INSTALL_DATADIR}/mhcpipe)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mhcpipe)
install(EXPORT mhcpipe-targets NAMESPACE mhcpipe:: DESTINATION ${package_dir})
file(WRITE ${PROJECT_BINARY_DIR}/mhcpipe-config.cmake "include(\${CMAKE_CURRENT_LIST_DIR}/mhcpipe-targets.cmake)\n")
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mhcpipe-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mhcpipe-config.cmake ${PROJECT_BINARY_DIR}/mhcpipe-config-version.cmake DESTINATION ${package_dir})

file(RELATIVE_PATH to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" to_prefix ${to_prefix})
# pkg-config finds the folders from where its own file lies, so that the installed tree can be moved.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/mhcpipe.pc @ONLY CONTENT [[
prefix=${pcfiledir}/@to_prefix@
libdir=${prefix}/@CMAKE_INSTALL_LIBDIR@
Name: mhcpipe
Description: @PROJECT_DESCRIPTION@
Version: @PROJECT_VERSION@
Cflags: -I${prefix}/@CMAKE_INSTALL_INCLUDEDIR@/mhcpipe
Libs: -L${libdir} -lmhcpipe
]])
install(FILES ${PROJECT_BINARY_DIR}/mhcpipe.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
