//! The GPU kernels as CUDA C++, on a machine without a GPU. Only with the feature `cuda-source`.

use std::sync::Arc;

use burn_cubecl::cubecl::{
    Compiler, CubeKernel,
    ir::{DeviceIdentity, HardwareProperties, MemoryDeviceProperties, features::Features},
    prelude::*,
    profile::TimingMethod,
};
use cubecl_cpp::{
    shared::{CompilationOptions, CppCompiler},
    target::Cuda,
};

use super::{attack_step, confusion, cross_entropy, resize};

/// What a kernel is compiled for: a GPU of compute capability 7.0 without anything that later ones added.
fn properties() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 32,
        max_shared_memory_size: 48 << 10,
        max_cube_count: (u32::MAX >> 1, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: 16,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity = DeviceIdentity { name: "none".into(), fingerprint: "none".into(), physical: None };
    let memory = MemoryDeviceProperties::new(u64::MAX, 256);
    Arc::new(DeviceProperties::new(Features::default(), memory, hardware, TimingMethod::Device, identity))
}

fn source(kernel: impl CubeKernel) -> String {
    CppCompiler::<Cuda>::default().compile(kernel.define(), &CompilationOptions::default()).expect("a kernel").source
}

/// Every kernel of ours by its name, as CUDA C++ for compute capability 7.0.
pub fn sources() -> Vec<(&'static str, String)> {
    let tensor = || TensorCompilationArg {
        meta: TensorMetaCompilationArg { len: (), rank: () },
        buffer: BufferCompilationArg { inplace: None },
    };
    macro_rules! kernel {
        ($module:ident :: $name:ident :: $kernel:ident, $($argument:expr),*) => {{
            let settings = KernelSettings::new(*CubeDim::new_1d(256), ExecutionMode::Checked, AddressType::U32);
            let target = Arc::new(TargetProperties::default());
            let kernel = $module::$name::$kernel::new(settings, properties(), target, $($argument),*);
            (stringify!($name), source(kernel))
        }};
    }
    vec![
        kernel!(resize::bilinear::Bilinear, tensor(), tensor(), (), (), ()),
        kernel!(resize::bilinear_backward::BilinearBackward, tensor(), tensor(), (), (), ()),
        kernel!(attack_step::sign_step::SignStep, tensor(), tensor(), tensor(), tensor(), tensor(), tensor(), (), ()),
        kernel!(cross_entropy::loss::Loss, tensor(), tensor(), tensor()),
        kernel!(cross_entropy::loss_and_gradient::LossAndGradient, tensor(), tensor(), tensor(), tensor(), tensor()),
        kernel!(confusion::confusion::Confusion, tensor(), tensor(), tensor(), tensor(), ()),
    ]
}
