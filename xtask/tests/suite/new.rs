use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::run_in;

const KINDS: [(&str, &str); 4] =
    [("attack", "my-attack"), ("defense", "my-defense"), ("model", "my-model"), ("dataset", "my-data")];

/// A workspace with nothing in it but an xtask.
fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let here = format!("path = \"{}/crates/", root.display());
    write("Cargo.toml", &manifest.replace("path = \"crates/", &here));
    write("Cargo.lock", &fs::read_to_string(root.join("Cargo.lock")).unwrap());
    for file in ["xtask/Cargo.toml", "xtask/src/main.rs"] {
        write(file, &fs::read_to_string(root.join(file)).unwrap().split("\n[[test]]").next().unwrap());
    }
    write("xtask/src/plugins.rs", "//! Crates that register something.\n");
    folder
}

#[test]
fn new_writes_the_crate_its_dependency_line_and_its_import() {
    let folder = workspace();
    for (kind, name) in KINDS {
        let out = run_in(folder.path(), &["new", kind, name]).good();
        assert!(out.contains(&format!("cargo test --release -p {name}")), "{out}");
        let source = fs::read_to_string(folder.path().join(format!("crates/{name}/src/lib.rs"))).unwrap();
        assert!(!source.contains("NAME") && !source.contains("TYPE"), "{source}");
    }
    let plugins = fs::read_to_string(folder.path().join("xtask/src/plugins.rs")).unwrap();
    let imports = "use my_attack as _;\nuse my_data as _;\nuse my_defense as _;\nuse my_model as _;\n";
    assert_eq!(plugins, format!("//! Crates that register something.\n\n{imports}"));
    let manifest = fs::read_to_string(folder.path().join("xtask/Cargo.toml")).unwrap();
    assert!(manifest.contains("my-attack = { path = \"../crates/my-attack\" }\n"), "{manifest}");
    run_in(folder.path(), &["new", "model", "my-attack"]).bad(&["crates/my-attack", "expected none"]);
    run_in(folder.path(), &["new", "model", "My_Model"]).bad(&["'My_Model'", "my-attack"]);
}

/// Builds everything anew in another workspace: minutes.
#[test]
#[ignore = "slow: builds a workspace"]
fn new_crates_compile_pass_their_test_and_are_known_by_name() {
    let folder = workspace();
    KINDS.iter().for_each(|(kind, name)| drop(run_in(folder.path(), &["new", kind, name]).good()));
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO")).current_dir(folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let packages = KINDS.iter().flat_map(|(_, name)| ["-p", *name]);
    cargo(&["test", "--release"].into_iter().chain(packages).collect::<Vec<_>>());
    let list = cargo(&["run", "--release", "-p", "xtask", "--", "bench", "--list"]);
    for name in ["my-attack", "my-model", "my-data"] {
        assert!(list.contains(name), "{name} in {list}");
    }
    let recipe = cargo(&[
        "run",
        "--release",
        "-p",
        "xtask",
        "--",
        "train",
        "--recipe",
        "crates/my-defense/recipe.toml",
        "--explain",
    ]);
    assert!(recipe.contains("my-defense"), "{recipe}");
}
