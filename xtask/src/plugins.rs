//! Crates that register something: `use my_attack as _;`, since the linker drops what nothing names. `new` adds lines here.
