//! Every operation on the device that `FIREPROOF_TEST_DEVICE` names.

#[cfg(all(feature = "cube", feature = "cuda-source"))]
mod cuda;

use fireproof_tensor::{device, selftest};

#[test]
fn every_operation_computes_what_its_reference_does() {
    let Some(device) = device::under_test() else { return };
    let checks = selftest::run(&device);
    let wrong: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
    assert!(wrong.is_empty(), "{} of {} operations differ: {wrong:#?}", wrong.len(), checks.len());
}
