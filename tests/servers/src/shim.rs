//! Libraries that a process preloads to meet the faults of a system it does not run on.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use tempfile::TempDir;

/// The library that disables the file system features named in `LANDFALL_SHIM_REFUSE`; compiled on first use, for
/// `LD_PRELOAD`.
///
/// # Panics
/// Without a C compiler (`cc`), which building Landfall needs anyway.
#[must_use]
pub fn limited_fs_shim() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for the library");
        let library = compiled(folder.path(), include_str!("shim/limited_fs.c"));
        (folder, library)
    });
    library
}

/// The library that a source makes, in this folder.
pub(crate) fn compiled(folder: &Path, source: &str) -> PathBuf {
    let (from, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&from, source).expect("the source is written");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &from])
        .arg("-ldl")
        .output()
        .expect("cc is on PATH; install a C compiler");
    let said = String::from_utf8_lossy(&compiled.stderr);
    assert!(
        compiled.status.success(),
        "cc could not compile the library: {said}"
    );
    library
}
