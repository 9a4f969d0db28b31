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
target_include_directories(mhp_flags INTERFACE ${PROJECT_SOURCE_DIR})
set(warnings -Wall -Wextra -Wshadow -Wpointer-arith -Wvla -Wundef -Wformat=2 -Werror)
if(CMAKE_C_COMPILER_ID MATCHES Clang)        # `omp simd` asks for more than it does, which sanitizers forbid at times
    list(APPEND warnings -Wno-pass-failed)
endif()
target_compile_options(mhp_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:C>:${warnings};-Wstrict-prototypes;-Wmissing-prototypes>"
    "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-lineinfo;-Xcompiler=-Wall,-Wextra>")

# mhp_host_option(flag): for the compilers of C and C++; nvcc hands the host's part to the latter.
function(mhp_host_option flag)
    target_compile_options(mhp_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${flag}>" "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${flag}>")
endfunction()

if(MHP_FUZZ)
    mhp_host_option(-fsanitize=fuzzer-no-link)
    target_link_options(mhp_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# What the compiler and the linker have of these. Sanitizers bring their own checks.
if(MHP_SANITIZE)
    foreach(flag -fsanitize=${MHP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
        mhp_host_option(${flag})
    endforeach()
    target_link_options(mhp_flags INTERFACE -fsanitize=${MHP_SANITIZE})
else()
    foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection)
        string(MAKE_C_IDENTIFIER "MHP_HAVE${flag}" have)
        check_c_compiler_flag(${flag} ${have})
        if(${have})
            mhp_host_option(${flag})
        endif()
    endforeach()
    if(NOT CMAKE_BUILD_TYPE STREQUAL Debug)     # needs optimisation
        mhp_host_option(-U_FORTIFY_SOURCE)
        mhp_host_option(-D_FORTIFY_SOURCE=2)
    endif()
    foreach(flag -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
        string(MAKE_C_IDENTIFIER "MHP_HAVE${flag}" have)
        check_linker_flag(C ${flag} ${have})
        if(${have})
            target_link_options(mhp_flags INTERFACE ${flag})
        endif()
    endforeach()
endif()

# mhp_folder(core LINK libraries ...): the static library of a folder and the folders that it may use. A backend is compiled or not:
# files cuda*, and all of a folder cuda/, or no_cuda*; of the former cudnn* or no_cudnn*, nccl_* or
# no_nccl*, cupti_* or no_cupti*.
function(mhp_folder name)
    cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} *.c *.cpp *.cu)
    if(MHP_CUDA_FOUND)
        set(other_backend "(^|/)no_cuda[^/]*$")
    else()
        set(other_backend "(^|/)cuda")
    endif()
    list(FILTER sources EXCLUDE REGEX ${other_backend})
    if(MHP_CUDNN_FOUND)
        list(FILTER sources EXCLUDE REGEX "(^|/)no_cudnn[^/]*$")
    else()
        list(FILTER sources EXCLUDE REGEX "(^|/)cudnn[^/]*$")
    endif()
    if(MHP_NCCL_FOUND)
        list(FILTER sources EXCLUDE REGEX "(^|/)no_nccl[^/]*$")
    else()
        list(FILTER sources EXCLUDE REGEX "(^|/)nccl_[^/]*$")
    endif()
    if(MHP_CUPTI_FOUND)
        list(FILTER sources EXCLUDE REGEX "(^|/)no_cupti[^/]*$")
    else()
        list(FILTER sources EXCLUDE REGEX "(^|/)cupti_[^/]*$")
    endif()
    add_library(mhp_${name} STATIC ${sources})
    target_link_libraries(mhp_${name} PRIVATE mhp_flags PUBLIC ${ARG_LINK})
endfunction()
