//! Devices by name: `flex`, `wgpu`, `vulkan`, `cuda:0`, `rocm:0`.
//!
//! Burn picks the backend at run time from the [`Device`]; which backends a binary holds is decided by cargo features
//! of the same names. One binary can hold several.

use burn::tensor::Device;

use crate::{Error, Result};

/// A backend that fireproof knows, compiled in or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Name on the command line; GPU backends take an index after a colon.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// True if this binary was built with the cargo feature of that name.
    pub compiled: bool,
}

/// What became of asking a backend for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The backend.
    pub backend: Backend,
    /// `Ok` with a word on the device, or why there is none.
    pub answer: std::result::Result<String, String>,
}

/// Every backend that fireproof knows.
pub fn backends() -> [Backend; 5] {
    let backend = |name, about, compiled| Backend { name, about, compiled };
    [
        backend("flex", "CPU, pure Rust", cfg!(feature = "flex")),
        backend("wgpu", "any GPU through WebGPU (WGSL)", cfg!(feature = "wgpu")),
        backend("vulkan", "any GPU through Vulkan (SPIR-V)", cfg!(feature = "vulkan")),
        backend("cuda", "NVIDIA GPUs", cfg!(feature = "cuda")),
        backend("rocm", "AMD GPUs", cfg!(feature = "rocm")),
    ]
}

/// Asks every backend whether it can be used here and now.
pub fn probe() -> Vec<Probe> {
    backends().into_iter().map(|backend| Probe { answer: answers(backend.name, 0), backend }).collect()
}

/// The names that [`open`] accepts on this machine.
pub fn available() -> Vec<&'static str> {
    backends().into_iter().map(|b| b.name).filter(|name| answers(name, 0).is_ok()).collect()
}

/// Opens a device by name.
///
/// # Errors
/// [`Error::UnknownDevice`] for a name that is none, [`Error::UnavailableDevice`] for a backend that is not compiled in
/// or finds no device; both list the names that work.
pub fn open(name: &str) -> Result<Device> {
    let unknown = || Error::UnknownDevice {
        name: name.to_string(),
        expected: backends().map(|b| b.name).join(", ") + " (GPU names take an index, as in cuda:0)",
    };
    let (backend, index) = match name.split_once(':') {
        Some((backend, index)) if backend != "flex" => (backend, index.parse::<usize>().map_err(|_| unknown())?),
        Some(_) => return Err(unknown()),
        None => (name, 0),
    };
    if !backends().iter().any(|b| b.name == backend) {
        return Err(unknown());
    }
    match answers(backend, index) {
        Ok(_) => Ok(create(backend, index)),
        Err(reason) => {
            Err(Error::UnavailableDevice { name: name.to_string(), reason, available: available().join(", ") })
        }
    }
}

/// Whether a backend has a device of this index, without creating it.
fn answers(backend: &str, index: usize) -> std::result::Result<String, String> {
    if !backends().iter().any(|b| b.name == backend && b.compiled) {
        return Err(format!("this binary was built without it; build with `--features {backend}`"));
    }
    if backend == "flex" {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(format!("{threads} threads"));
    }
    match devices(backend).len() {
        0 => Err("found no device; is its driver installed?".into()),
        found if index < found => Ok(format!("{found} device(s)")),
        found => Err(format!("found {found} device(s), no index {index}")),
    }
}

/// The devices of a GPU backend, real GPUs before drivers that play one. A driver that fails to load panics inside it; here
/// that means none.
#[allow(unused_variables)]
fn devices(backend: &str) -> Vec<Device> {
    #[cfg(feature = "cube")]
    {
        use burn::tensor::DeviceType;
        let kind = match backend {
            #[cfg(feature = "wgpu")]
            "wgpu" => DeviceType::Wgpu,
            #[cfg(feature = "vulkan")]
            "vulkan" => DeviceType::Vulkan,
            #[cfg(feature = "cuda")]
            "cuda" => DeviceType::Cuda,
            #[cfg(feature = "rocm")]
            "rocm" => DeviceType::Rocm,
            _ => return Vec::new(),
        };
        std::panic::catch_unwind(|| Device::enumerate(kind).into_vec()).unwrap_or_default()
    }
    #[cfg(not(feature = "cube"))]
    Vec::new()
}

fn create(backend: &str, index: usize) -> Device {
    devices(backend).into_iter().nth(index).unwrap_or_else(Device::flex)
}

/// What a device calls itself, such as `llvmpipe (LLVM 15.0.6, 256 bits)`. Opens it.
pub fn identity(device: &Device) -> String {
    #[cfg(feature = "cube")]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    if *device == Device::flex() { "the CPU".into() } else { format!("{device:?}") }
}

/// Bytes that one tensor may take on the device, where it has a limit below its memory. Opens the device.
#[allow(unused_variables)]
pub fn largest_tensor(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    return crate::ops::cube::largest_binding(device);
    #[cfg(not(feature = "cube"))]
    None
}

/// The device that a test runs on: the one that `FIREPROOF_TEST_DEVICE` names, `flex` without it.
///
/// Tests that call it serve every backend from the same source. Where the device cannot be opened it says `skipped: …` with the
/// test's name on standard error, past what the test harness captures, and returns none.
///
/// # Panics
/// If the variable names no device at all.
pub fn under_test() -> Option<Device> {
    use std::io::Write;
    let name = std::env::var("FIREPROOF_TEST_DEVICE").unwrap_or_else(|_| "flex".into());
    match open(&name) {
        Ok(device) => Some(device),
        Err(error @ Error::UnavailableDevice { .. }) => {
            let test = std::thread::current();
            let _ = writeln!(std::io::stderr(), "skipped: {}: {error}", test.name().unwrap_or("a test"));
            None
        }
        Err(error) => panic!("FIREPROOF_TEST_DEVICE: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flex_is_always_there() {
        assert!(open("flex").is_ok());
        assert!(available().contains(&"flex"));
    }

    #[test]
    fn an_unknown_name_gets_the_list_of_names() {
        let message = open("gpu").unwrap_err().to_string();
        assert!(message.contains("'gpu'") && message.contains("flex, wgpu, vulkan, cuda, rocm"), "{message}");
        assert!(open("cuda:x").is_err() && open("flex:1").is_err());
    }

    #[test]
    fn a_backend_that_is_not_compiled_in_names_the_feature_to_build_with() {
        for backend in backends().into_iter().filter(|b| !b.compiled) {
            let message = open(backend.name).unwrap_err().to_string();
            assert!(message.contains(&format!("--features {}", backend.name)), "{message}");
            assert!(message.contains("available here: flex"), "{message}");
        }
    }
}
