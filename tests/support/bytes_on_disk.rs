//! The bytes of an installation as they are on disk, independent of what the server lists.

use landfall_core::{app::App, config::Backend, digest::Sha256Digest};
use landfall_test_servers::{OpenUpload, S3View};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The installation's marker, in a folder and in a bucket.
const MARKERS: [&str; 2] = [".landfall-installation", "landfall-installation"];

/// The prefix of staging in a bucket.
const STAGING: &str = "staging/";

/// Where an installation keeps its bytes.
#[derive(Clone, Debug)]
pub struct BytesOnDisk {
    staging: Location,
    storage: Location,
}

#[derive(Clone, Debug)]
enum Location {
    Folder(PathBuf),
    Bucket { server: S3View, name: String },
}

/// An object, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    pub size: u64,
    pub sha256: String,
}

impl BytesOnDisk {
    /// The locations in the configuration; `bucket` is the server and name of the bucket, if there is one.
    pub fn new(app: &App, bucket: Option<(S3View, String)>) -> Self {
        let config = &app.config;
        let at = |backend, path: &Path| match (backend, &bucket) {
            (Backend::Fs, _) => Location::Folder(path.to_owned()),
            (Backend::S3, Some((server, name))) => Location::Bucket {
                server: server.clone(),
                name: below(Path::new(name), &config.storage.prefix)
                    .display()
                    .to_string(),
            },
            (Backend::S3, None) => panic!("a bucket is configured that the test does not know"),
        };
        Self {
            staging: at(config.staging.backend, &config.staging.path),
            storage: at(
                config.storage.backend,
                &below(&config.storage.path, &config.storage.prefix),
            ),
        }
    }

    /// Returns the names of everything in staging, including temporary names.
    pub fn staged(&self) -> Vec<String> {
        match &self.staging {
            Location::Folder(folder) => without_marker(walk(folder)),
            Location::Bucket { server, name } => {
                let keys = server.keys(name).into_iter();
                keys.filter_map(|key| key.strip_prefix(STAGING).map(str::to_owned))
                    .collect()
            }
        }
    }

    /// Returns the names of everything in storage, including temporary names.
    pub fn stored(&self) -> Vec<String> {
        match &self.storage {
            Location::Folder(folder) => without_marker(walk(folder)),
            Location::Bucket { server, name } => {
                let keys = server.keys(name).into_iter();
                without_marker(keys.filter(|key| !key.starts_with(STAGING)).collect())
            }
        }
    }

    /// Returns the object at a key, if it exists.
    pub fn read_back(&self, key: &str) -> Option<ReadBack> {
        let path = match &self.storage {
            Location::Folder(folder) => folder.join(key),
            Location::Bucket { server, name } => server.path(name, key),
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => panic!("the object {key} cannot be opened: {error}"),
        };
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1024 * 1024];
        loop {
            match file.read(&mut buffer).expect("an object can be read") {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        Some(ReadBack {
            size,
            sha256: Sha256Digest::from_hasher(hasher).to_string(),
        })
    }

    /// Returns the multipart uploads that were neither completed nor aborted.
    pub fn open_multipart_uploads(&self) -> Vec<OpenUpload> {
        match &self.storage {
            Location::Folder(_) => Vec::new(),
            Location::Bucket { server, .. } => server.open_multipart_uploads(),
        }
    }
}

/// The path of the prefix (`storage.prefix`), which may be empty.
fn below(path: &Path, prefix: &str) -> PathBuf {
    match prefix {
        "" => path.to_owned(),
        prefix => path.join(prefix),
    }
}

fn without_marker(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| !MARKERS.contains(&name.as_str()));
    names
}

/// Returns the relative paths of all files in a folder.
fn walk(root: &Path) -> Vec<String> {
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        // A folder may be removed while it is being read.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(name) = path.strip_prefix(root) {
                files.push(name.to_string_lossy().into_owned());
            }
        }
    }
    files.sort_unstable();
    files
}
