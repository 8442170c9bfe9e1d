//! Libraries that a process preloads to meet the faults of a system it does not run on.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use tempfile::TempDir;

/// The library that makes the file system refuse what `LANDFALL_SHIM_REFUSE` names; compiled on first use, for
/// `LD_PRELOAD`.
///
/// # Panics
/// Without a C compiler (`cc`), which building Landfall needs anyway.
#[must_use]
pub fn limited_fs_shim() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for the library");
        let (source, library) = (
            folder.path().join("limited_fs.c"),
            folder.path().join("limited_fs.so"),
        );
        std::fs::write(&source, include_str!("shim/limited_fs.c")).expect("the source is written");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .expect("cc is on PATH; install a C compiler");
        assert!(compiled.success(), "cc could not compile the library");
        (folder, library)
    });
    library
}
