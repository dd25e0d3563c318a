//! Devices whose backend is not compiled in, or that are not there.

use std::process::Command;

use fireproof_tensor::device;

use crate::lab::Lab;

/// A backend that this build does not have.
fn absent() -> Option<&'static str> {
    device::backends().iter().find(|backend| !backend.compiled).map(|backend| backend.name)
}

/// Not a test of its own: what the next one runs where its device is not there.
#[test]
fn needs_a_device() {
    let _ = device::under_test();
}

#[test]
fn tests_that_miss_their_device_say_so_by_name_and_pass() {
    let Some(backend) = absent() else { return };
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["devices::needs_a_device", "--exact"])
        .env("FIREPROOF_TEST_DEVICE", format!("{backend}:0"))
        .output()
        .unwrap();
    let told = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success() && told.contains("skipped: devices::needs_a_device: "), "{told}");
    assert!(told.contains(backend), "{told}");
}

#[test]
#[cfg(unix)]
fn a_command_on_a_backend_that_is_not_compiled_in_is_run_by_a_binary_that_is_built_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let Some(backend) = absent() else { return };
    let lab = Lab::new();
    // In cargo's place, a program that says what it was asked for, and ends as the command would.
    let cargo = lab.path("cargo");
    std::fs::write(&cargo, "#!/bin/sh\necho \"asked: $* ($FIREPROOF_REBUILT)\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["bench", "--images", "2", "--device", backend])
        .env("CARGO", &cargo)
        .env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))
        .env_remove("FIREPROOF_REBUILT")
        .output()
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert!(
        told.contains("asked: run --quiet --release --package xtask --features ") && told.contains(backend),
        "{told}"
    );
    assert!(told.contains(&format!("-- bench --images 2 --device {backend} (1)")), "{told}");
    assert_eq!(ran.status.code(), Some(7), "the command ends as the new binary does");
    // Where even that binary lacks it, an error says so and nothing is built again.
    lab.run(&["bench", "--device", backend]).bad(&[backend]);
}
