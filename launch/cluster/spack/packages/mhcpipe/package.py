# From a checkout of the repository:
#
#   spack repo add launch/cluster/spack
#   spack dev-build mhcpipe@main            for the processor
#   spack dev-build mhcpipe@main +cuda cuda_arch=90
from spack.package import *


class Mhcpipe(CMakePackage, CudaPackage):
    """Pipeline-parallel training runtime for transformers with manifold-constrained hyper-connections."""

    license("Apache-2.0")

    version("main")

    variant("cudnn", default=True, when="+cuda", description="Attention by cuDNN")

    depends_on("c", type="build")
    depends_on("cxx", type="build", when="+cuda")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("random123", type="build")
    depends_on("cmocka", type=("build", "test"))
    depends_on("hwloc@2:")
    depends_on("jansson")
    depends_on("libyaml")
    depends_on("mpi")
    depends_on("openblas threads=openmp")
    depends_on("xxhash")
    depends_on("cuda@12:", when="+cuda")
    depends_on("cudnn@9:", when="+cudnn")

    conflicts("cuda_arch=none", when="+cuda", msg="name the cards' architecture: cuda_arch=90")

    generator("ninja")

    def cmake_args(self):
        args = [
            self.define("MHP_CUDA", "on" if self.spec.satisfies("+cuda") else "off"),
            self.define("BUILD_TESTING", self.run_tests),
        ]
        if self.spec.satisfies("+cuda"):
            args.append(self.define("CMAKE_CUDA_ARCHITECTURES", self.spec.variants["cuda_arch"].value))
        return args
