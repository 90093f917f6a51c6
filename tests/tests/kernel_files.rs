//! The GPU kernels' files (or folders): each says its formula and its CPU reference, and has a bench.

use std::path::{Path, PathBuf};

#[test]
fn each_kernel_file_names_its_reference_and_has_a_bench() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let benches = read(&root.join("benches/devices.rs"));
    let mut kernels = 0;
    let listed = |folder: &Path| -> Vec<PathBuf> {
        let entries = folder.read_dir().expect("the kernels' folder is there");
        entries.map(|e| e.expect("a folder can be listed").path()).collect()
    };
    for path in listed(&root.join("kernels/src")) {
        // Of a folder, `mod.rs` says what there is to say.
        let mut text = if path.is_dir() { read(&path.join("mod.rs")) } else { String::new() };
        let mut within = vec![path.clone()];
        while let Some(path) = within.pop() {
            if path.is_dir() { within.extend(listed(&path)) } else { text += &read(&path) }
        }
        if !text.contains("#[cube(launch") {
            continue; // parts of kernels
        }
        kernels += 1;
        let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
        assert!(head.contains("CPU reference"), "kernels/src/{name}.rs does not say what it is compared with");
        assert!(benches.contains(&format!("`{name}`")), "benches/devices.rs has nothing for `{name}`");
    }
    assert!(kernels >= 15, "only {kernels} files were found");
}
