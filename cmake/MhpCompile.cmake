# Compiler settings of every target.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release)
endif()

add_library(mhp_flags INTERFACE)
target_compile_definitions(mhp_flags INTERFACE _GNU_SOURCE)
target_compile_options(mhp_flags INTERFACE
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef -Wformat=2 -Werror)
target_include_directories(mhp_flags INTERFACE ${PROJECT_SOURCE_DIR})

# mhp_folder(core ... LINK libraries): the static library of a folder and the folders that it may use.
function(mhp_folder name)
    cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    if(NOT sources)
        set(sources ${PROJECT_SOURCE_DIR}/cmake/empty.c)
    endif()
    add_library(mhp_${name} STATIC ${sources})
    target_link_libraries(mhp_${name} PRIVATE mhp_flags PUBLIC ${ARG_LINK})
endfunction()
