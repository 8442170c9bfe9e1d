//! PostgreSQL's own programs: where they are, and talking to the server by them, so that no test
//! has to build a client for it.

use crate::certificates::Certificates;
use std::fs::Permissions;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// `psql`, and the database it runs SQL in.
#[derive(Debug, Clone)]
pub(crate) struct Psql {
    program: PathBuf,
    url: String,
}

impl Psql {
    pub(crate) fn new(program: PathBuf, url: String) -> Self {
        Self { program, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same program at another database.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self {
            program: self.program.clone(),
            url: url.to_owned(),
        }
    }

    /// The URL of another database of the same server.
    pub(crate) fn url_of(&self, database: &str) -> String {
        let (path, query) = self
            .url
            .split_once('?')
            .map_or((&*self.url, None), |(path, query)| (path, Some(query)));
        let server = match path.split_once("://").map(|(_, rest)| rest.contains('/')) {
            Some(true) => path.rsplit_once('/').map_or(path, |(server, _)| server),
            _ => path,
        };
        match query {
            Some(query) => format!("{server}/{database}?{query}"),
            None => format!("{server}/{database}"),
        }
    }

    /// Runs SQL; returns rows as lines, columns separated by `|`.
    pub(crate) fn run(&self, sql: &str) -> String {
        let answer = Command::new(&self.program)
            .args([
                "--no-psqlrc",
                "--no-password",
                "--quiet",
                "--tuples-only",
                "--no-align",
            ])
            .args([
                "--set",
                "ON_ERROR_STOP=1",
                "--dbname",
                &self.url,
                "--command",
                sql,
            ])
            .output()
            .expect("cannot run psql");
        let errors = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "psql refused `{sql}`: {errors}");
        String::from_utf8_lossy(&answer.stdout)
            .trim_end()
            .to_owned()
    }
}

/// Returns the name of a database given by name or URL.
pub(crate) fn database_of(name_or_url: &str) -> &str {
    let path = name_or_url.split('?').next().unwrap_or(name_or_url);
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// A database name that no other test, process or run has.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("the clock is past 1970").as_nanos();
    format!("landfall_test_{now:x}_{}_{count}", std::process::id())
}

/// The name of the database that this build of this program clones on this server.
pub(crate) fn template_name(url: &str) -> String {
    let program = std::env::current_exe().expect("a program knows where it is");
    let changed = std::fs::metadata(&program).and_then(|metadata| metadata.modified());
    let changed = changed.expect("a program has a time of change");
    // The same in every process: this hasher has no seed.
    let mut hasher = std::hash::DefaultHasher::new();
    (url, program, changed).hash(&mut hasher);
    format!("landfall_template_{:x}", hasher.finish())
}

/// The user to run the server as, because it refuses to run as root.
pub(crate) fn unprivileged_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = ["postgres", "nobody"].iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(ids.expect("PostgreSQL refuses to run as root, and there is no user postgres or nobody"))
}

/// `initdb`: a cluster whose owner is `landfall` and that trusts everyone on loopback.
pub(crate) fn init_cluster(program: &Path, data: &Path, user: Option<(u32, u32)>) {
    // Unicode case folding if the system supports it; `C` always exists.
    let mut errors = String::new();
    for locale in ["C.UTF-8", "C"] {
        let mut command = Command::new(program);
        command
            .args([
                "--auth",
                "trust",
                "--username",
                "landfall",
                "--no-sync",
                "--encoding",
                "UTF8",
            ])
            .args(["--locale", locale, "--pgdata"])
            .arg(data)
            .current_dir("/");
        if let Some((user, group)) = user {
            command.uid(user).gid(group);
        }
        let answer = command.output().expect("cannot run initdb");
        if answer.status.success() {
            return;
        }
        errors = String::from_utf8_lossy(&answer.stderr).into_owned();
    }
    panic!("{} failed: {errors}", program.display());
}

/// `pg_basebackup`: the cluster of a standby of the server on this port.
pub(crate) fn copy_cluster(program: &Path, port: u16, data: &Path, user: Option<(u32, u32)>) {
    let mut command = Command::new(program);
    command
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--username", "landfall", "--no-password", "--no-sync"])
        .args(["--checkpoint", "fast", "--write-recovery-conf", "--pgdata"])
        .arg(data)
        .current_dir("/");
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    let answer = command.output().expect("cannot run pg_basebackup");
    let errors = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "pg_basebackup failed: {errors}");
}

/// Makes a cluster accept TLS.
pub(crate) fn use_certificate(data: &Path, certificates: &Certificates, user: Option<(u32, u32)>) {
    for (name, from) in [
        ("server.crt", certificates.certificate()),
        ("server.key", certificates.key()),
    ] {
        let to = data.join(name);
        std::fs::copy(from, &to).expect("a file in a folder of ours");
        // It refuses a key that others may read.
        std::fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("a file of ours");
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(&to, Some(user), Some(group)).expect("a file of ours");
        }
    }
    let settings = data.join("postgresql.auto.conf");
    std::fs::write(settings, "ssl = on\n").expect("a file in a folder of ours");
}

/// Where packages put the server's programs when not on `PATH`, the newest version first.
pub(crate) fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/usr/libexec", "postgresql"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            if let Some(version) = version {
                found.push((version, entry.path()));
            }
        }
    }
    found.sort_unstable_by_key(|(version, _): &(u32, _)| std::cmp::Reverse(*version));
    found
        .into_iter()
        .flat_map(|(_, path)| [path.join("bin"), path])
        .collect()
}
