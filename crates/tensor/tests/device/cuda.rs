//! The GPU kernels as CUDA C++, and that as PTX, on a machine without a GPU.
//!
//! NVRTC compiles them where `FIREPROOF_NVRTC` names the folder that holds `libnvrtc.so.12` (PyPI's `nvidia-cuda-nvrtc-cu12` has
//! it, and `nvidia-cuda-runtime-cu12` the headers of half precision).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use fireproof_tensor::ops::cuda_source::sources;

#[test]
fn every_kernel_becomes_cuda_cpp() {
    for (name, source) in sources() {
        assert!(source.contains("__global__") && source.contains(name), "{name}: {source}");
        // What only some GPUs have, and what would assume the size of a warp.
        for word in ["__shfl", "__ballot", "__syncwarp", "__shared__", "warpSize"] {
            assert!(!source.contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn every_kernel_compiles_to_ptx() {
    use std::io::Write;
    let Some(folder) = std::env::var_os("FIREPROOF_NVRTC") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: every_kernel_compiles_to_ptx: FIREPROOF_NVRTC names no folder with libnvrtc.so.12"
        );
        return;
    };
    let folder = PathBuf::from(folder);
    let compiler = Nvrtc::open(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for architecture in ["compute_70", "compute_80", "compute_90"] {
        for (name, source) in sources() {
            let ptx = compiler.ptx(&source, architecture).unwrap_or_else(|log| panic!("{name}: {log}\n{source}"));
            assert!(ptx.contains(".entry") && ptx.contains(&architecture.replace("compute", "sm")), "{name}: {ptx}");
        }
    }
    // A planted error does not pass.
    assert!(compiler.ptx("__global__ void broken() { int x = ; }", "compute_80").is_err());
}

/// NVIDIA's run-time compiler, as far as we need it: <https://docs.nvidia.com/cuda/nvrtc/>.
struct Nvrtc {
    library: libloading::Library,
    /// Headers of the run-time library, which half precision includes, where they lie beside it.
    include: Option<String>,
}

type Program = *mut c_void;

impl Nvrtc {
    fn open(folder: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: NVRTC's initialisers do nothing but set the library up.
        let library = unsafe { libloading::Library::new(folder.join("libnvrtc.so.12")) }?;
        let include = folder.join("../../cuda_runtime/include");
        let include = include.is_dir().then(|| format!("--include-path={}", include.display()));
        Ok(Self { library, include })
    }

    /// The PTX of a source, or the compiler's log.
    fn ptx(&self, source: &str, architecture: &str) -> Result<String, String> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
        let options: Vec<CString> = [Some(format!("--gpu-architecture={architecture}")), self.include.clone()]
            .into_iter()
            .flatten()
            .map(|option| CString::new(option).expect("no zero byte"))
            .collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let source = CString::new(source).expect("no zero byte");
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: the signatures are those of nvrtc.h; every pointer outlives its call, and the program is destroyed once.
        unsafe {
            let create: libloading::Symbol<Create> = self.symbol(b"nvrtcCreateProgram");
            let compile: libloading::Symbol<Compile> = self.symbol(b"nvrtcCompileProgram");
            let destroy: libloading::Symbol<Destroy> = self.symbol(b"nvrtcDestroyProgram");
            let none = std::ptr::null();
            let created = create(&mut program, source.as_ptr(), none, 0, std::ptr::null(), std::ptr::null());
            assert_eq!(created, 0, "nvrtcCreateProgram");
            let status = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let result = if status == 0 {
                Ok(self.text(program, b"nvrtcGetPTXSize", b"nvrtcGetPTX"))
            } else {
                Err(self.text(program, b"nvrtcGetProgramLogSize", b"nvrtcGetProgramLog"))
            };
            destroy(&mut program);
            result
        }
    }

    /// # Safety
    /// `T` must be the symbol's type.
    unsafe fn symbol<T>(&self, name: &[u8]) -> libloading::Symbol<'_, T> {
        // SAFETY: as the caller promises.
        unsafe { self.library.get(name) }.expect("a function of every NVRTC")
    }

    /// # Safety
    /// The names must be those of a size and of a text of a program.
    unsafe fn text(&self, program: Program, size: &[u8], text: &[u8]) -> String {
        type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
        type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
        let mut bytes = 0usize;
        // SAFETY: the buffer is as long as the library said, and it writes a zero at the end.
        unsafe {
            self.symbol::<Size>(size)(program, &mut bytes);
            let mut buffer = vec![0u8; bytes + 1];
            self.symbol::<Text>(text)(program, buffer.as_mut_ptr().cast());
            CStr::from_ptr(buffer.as_ptr().cast()).to_string_lossy().into_owned()
        }
    }
}
