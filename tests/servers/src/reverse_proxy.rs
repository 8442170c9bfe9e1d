//! nginx, HAProxy or Caddy in front of servers of the test, with TLS.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::background::in_background;
use crate::certificates::Certificates;
use crate::watchdog::{Plan, Watchdog, find_program, folder, wait_ready};

const READY: Duration = Duration::from_secs(30);

/// What the documented configurations call the site, its certificate and the two servers behind it.
const SITE: &str = "files.example.com";
const CERTIFICATE: &str = "/etc/ssl/files.example.com";
const UPSTREAMS: [&str; 2] = ["10.0.0.11:8080", "10.0.0.12:8080"];

/// What nginx needs around the configuration of a site.
const NGINX: &str = "daemon off;
pid @FOLDER@/nginx.pid;
error_log stderr;
worker_processes 2;
@USER@
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path @FOLDER@/body;
    proxy_temp_path @FOLDER@/proxy;
    fastcgi_temp_path @FOLDER@/fastcgi;
    uwsgi_temp_path @FOLDER@/uwsgi;
    scgi_temp_path @FOLDER@/scgi;
    include @FOLDER@/site.conf;
}
";

/// What Caddy needs not to touch the machine: no ports but the site's, no certificates of its own.
const CADDY: &str = "{
	admin off
	auto_https off
	storage file_system @FOLDER@/caddy
}
";

/// A reverse proxy program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReverseProxyProgram {
    Nginx,
    Haproxy,
    Caddy,
}

/// A reverse proxy on a free port of 127.0.0.1, stopped on drop.
#[derive(Debug)]
pub struct ReverseProxy {
    watchdog: Watchdog,
    certificates: Certificates,
    port: u16,
}

impl ReverseProxy {
    /// Starts it with a documented configuration, in which the name, the certificate, the address and the servers behind
    /// it are replaced by those of the test.
    ///
    /// # Panics
    /// If the program is missing or does not accept the configuration.
    pub async fn start(
        program: ReverseProxyProgram,
        documented: &str,
        port: u16,
        upstreams: [u16; 2],
    ) -> Self {
        let documented = documented.to_owned();
        in_background(move || Self::launch(program, &documented, port, upstreams)).await
    }

    fn launch(
        program: ReverseProxyProgram,
        documented: &str,
        port: u16,
        upstreams: [u16; 2],
    ) -> Self {
        let certificates = Certificates::new();
        let folder = folder("proxy", None);
        let mut site = documented.to_owned();
        for (documented, port) in UPSTREAMS.iter().zip(upstreams) {
            assert!(
                site.contains(documented),
                "the configuration has {documented}"
            );
            site = site.replace(documented, &format!("127.0.0.1:{port}"));
        }
        let command = program.configure(&site, port, &certificates, &folder);
        let watchdog = Watchdog::new(&Plan {
            command,
            folder,
            last_signal: "TERM",
            user: None,
        });
        watchdog.start();
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        if let Err(reason) = wait_ready(READY, listens, || false) {
            panic!("{program:?} did not start: {reason}\n{}", watchdog.log());
        }
        Self {
            watchdog,
            certificates,
            port,
        }
    }

    /// `https://localhost:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The certificate of the authority that its clients must trust.
    #[must_use]
    pub fn authority(&self) -> &Path {
        self.certificates.authority()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.watchdog.log()
    }
}

impl ReverseProxyProgram {
    /// Every program.
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Caddy];

    /// Writes the configuration, and returns the command.
    fn configure(
        self,
        site: &str,
        port: u16,
        certificates: &Certificates,
        folder: &Path,
    ) -> Vec<OsString> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file in a folder of ours");
            path
        };
        let within = |text: &str| text.replace("@FOLDER@", &folder.display().to_string());
        let (certificate, key) = (certificates.certificate(), certificates.key());
        let pem = |extension: &str| format!("{CERTIFICATE}.{extension}");
        let (program, arguments): (&str, Vec<OsString>) = match self {
            Self::Nginx => {
                let site = site
                    .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
                    .replace(&pem("pem"), &certificate.display().to_string())
                    .replace(&pem("key"), &key.display().to_string())
                    .replace(SITE, "localhost");
                write("site.conf", &site);
                // Its workers would otherwise not be allowed into a folder of root's.
                let user = match rustix::process::geteuid().is_root() {
                    true => "user root;",
                    false => "",
                };
                let main = write("nginx.conf", &within(NGINX).replace("@USER@", user));
                ("nginx", vec!["-c".into(), main.into()])
            }
            Self::Haproxy => {
                let read = |path: &Path| std::fs::read_to_string(path).expect("a certificate");
                let bundle = write("bundle.pem", &(read(&certificate) + &read(&key)));
                let site = site
                    .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
                    .replace(&pem("pem"), &bundle.display().to_string())
                    .replace(SITE, "localhost");
                let main = write("haproxy.cfg", &site);
                ("haproxy", vec!["-db".into(), "-f".into(), main.into()])
            }
            Self::Caddy => {
                let tls = format!("tls {} {}", certificate.display(), key.display());
                let site = site.replace(
                    &format!("\n{SITE} {{\n"),
                    &format!("\nhttps://localhost:{port} {{\n\tbind 127.0.0.1\n\t{tls}\n"),
                );
                let site = site.replace(SITE, "localhost");
                let main = write("Caddyfile", &(within(CADDY) + &site));
                let arguments = ["run", "--adapter", "caddyfile", "--config"];
                let mut arguments: Vec<OsString> = arguments.map(OsString::from).to_vec();
                arguments.push(main.into());
                ("caddy", arguments)
            }
        };
        let found = find_program(&[program], &["/usr/sbin".into()]);
        let found = found.unwrap_or_else(|| {
            panic!("no {program} on PATH: `apt-get install {program}`, or run scripts/test")
        });
        [vec![found.into_os_string()], arguments].concat()
    }
}
