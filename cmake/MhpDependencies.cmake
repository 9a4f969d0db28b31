# What a CPU build needs; every one of them is in Debian 12.
find_package(Threads REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)
find_path(RANDOM123_INCLUDE_DIR Random123/philox.h REQUIRED)

set(MHP_LIBRARIES PkgConfig::YAML PkgConfig::JANSSON PkgConfig::XXHASH PkgConfig::HWLOC PkgConfig::OPENBLAS OpenMP::OpenMP_C MPI::MPI_C
    Threads::Threads m)
