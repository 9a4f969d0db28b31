# Compiler settings of every target.
include(CheckCCompilerFlag)
include(CheckLinkerFlag)

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release)
endif()
set(MHP_SANITIZE "" CACHE STRING "Sanitizers of every target, as for -fsanitize: address,undefined or thread")
option(MHP_FUZZ "Build the libFuzzer harnesses (clang)" OFF)

# Assertions guard against programmers' mistakes in every build type.
foreach(type RELEASE RELWITHDEBINFO MINSIZEREL)
    string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${type} "${CMAKE_C_FLAGS_${type}}")
endforeach()

add_library(mhp_flags INTERFACE)
target_compile_definitions(mhp_flags INTERFACE _GNU_SOURCE)
target_compile_options(mhp_flags INTERFACE
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef -Wformat=2 -Werror)
target_include_directories(mhp_flags INTERFACE ${PROJECT_SOURCE_DIR})

if(MHP_FUZZ)
    target_compile_options(mhp_flags INTERFACE -fsanitize=fuzzer-no-link)
    target_link_options(mhp_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# What the compiler and the linker have of these. Sanitizers bring their own checks.
if(MHP_SANITIZE)
    target_compile_options(mhp_flags INTERFACE -fsanitize=${MHP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
    target_link_options(mhp_flags INTERFACE -fsanitize=${MHP_SANITIZE})
else()
    foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection)
        string(MAKE_C_IDENTIFIER "MHP_HAVE${flag}" have)
        check_c_compiler_flag(${flag} ${have})
        if(${have})
            target_compile_options(mhp_flags INTERFACE ${flag})
        endif()
    endforeach()
    if(NOT CMAKE_BUILD_TYPE STREQUAL Debug)     # needs optimisation
        target_compile_options(mhp_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
    endif()
    foreach(flag -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
        string(MAKE_C_IDENTIFIER "MHP_HAVE${flag}" have)
        check_linker_flag(C ${flag} ${have})
        if(${have})
            target_link_options(mhp_flags INTERFACE ${flag})
        endif()
    endforeach()
endif()

# mhp_folder(core LINK libraries ...): the static library of a folder and the folders that it may use.
function(mhp_folder name)
    cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    add_library(mhp_${name} STATIC ${sources})
    target_link_libraries(mhp_${name} PRIVATE mhp_flags PUBLIC ${ARG_LINK})
endfunction()
