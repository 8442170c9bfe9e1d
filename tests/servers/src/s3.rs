//! An S3 server inside the test process, with signature checks and faults on demand.

mod faults;
mod keys;
mod operation;
mod paced;
mod quirks;
mod store;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;

use crate::listener::Listener;
use crate::port::free_port;
use crate::watchdog::{Plan, Watchdog, folder};
use faults::{Fault, Faults};
pub(crate) use keys::AccessKeys;
pub use operation::S3Operation;
pub use quirks::S3Quirk;
use quirks::{Quirks, bucket_in_host};
pub use store::OpenUpload;
use store::Store;
pub use view::S3View;

/// Where an [`S3Server`] listens, what it keeps where, and whom it believes.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The folder of the buckets; `None`: a temporary one, removed with the server.
    pub root: Option<PathBuf>,
    /// The port on 127.0.0.1; 0: a free one.
    pub port: u16,
    /// The one access key.
    pub access_key: String,
    /// Its secret; a request signed with another is 403.
    pub secret_key: String,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            root: None,
            port: 0,
            access_key: "landfall-test".to_owned(),
            secret_key: "landfall-test-secret".to_owned(),
        }
    }
}

/// An S3 server on 127.0.0.1 over a folder, for any region. The bucket is named in the path, or in the host below
/// `localhost`.
#[derive(Debug)]
pub struct S3Server {
    listener: Listener,
    faults: Arc<Faults>,
    quirks: Arc<Quirks>,
    keys: AccessKeys,
    store: Store,
    root: PathBuf,
    options: S3Options,
    // Holds nothing but the temporary folder.
    _folder: Option<Watchdog>,
}

impl S3Server {
    /// Starts a server over an empty temporary folder.
    ///
    /// # Panics
    /// If it cannot listen or write.
    pub async fn start() -> Self {
        Self::start_with(S3Options::default()).await
    }

    /// Starts a server with options; the folder must exist.
    ///
    /// # Panics
    /// If it cannot listen on the port or use the folder.
    #[expect(
        clippy::unused_async,
        reason = "every server of this crate starts alike"
    )]
    pub async fn start_with(options: S3Options) -> Self {
        let (root, guard) = match &options.root {
            Some(root) => (root.canonicalize().expect("no such folder"), None),
            None => {
                let folder = folder("s3", None);
                let plan = Plan {
                    command: Vec::new(),
                    folder: folder.clone(),
                    last_signal: "KILL",
                    user: None,
                };
                (folder, Some(Watchdog::new(&plan)))
            }
        };
        let quirks = Arc::new(Quirks::default());
        let store = Store::new(&root, Arc::clone(&quirks));
        let port = match options.port {
            0 => free_port(),
            port => port,
        };
        let keys = AccessKeys::default();
        keys.add(&options.access_key, &options.secret_key);
        let builder = || {
            let mut service = S3ServiceBuilder::new(store.clone());
            service.set_auth(keys.clone());
            service
        };
        let by_path = builder().build();
        let mut by_host = builder();
        let domain = SingleDomain::new(&format!("localhost:{port}"));
        by_host.set_host(domain.expect("the name of this machine is a domain"));
        let by_host = by_host.build();
        let faults = Arc::new(Faults::default());
        let (plan, provider, accepted) = (Arc::clone(&faults), Arc::clone(&quirks), keys.clone());
        let listener = Listener::start(port, move |request| {
            let service = match bucket_in_host(&request) {
                Some(_) => by_host.clone(),
                None => by_path.clone(),
            };
            let refusal = accepted
                .refusal(&request)
                .or_else(|| provider.refusal(&request));
            faults::answer(Arc::clone(&plan), refusal, service, request)
        });
        Self {
            listener,
            faults,
            quirks,
            keys,
            store,
            root,
            options,
            _folder: guard,
        }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// `http://localhost:PORT`, below which buckets have host names.
    #[must_use]
    pub fn host_endpoint(&self) -> String {
        format!("http://localhost:{}", self.listener.address().port())
    }

    /// From now on behaves as this provider does.
    pub fn imitate(&self, quirk: S3Quirk) {
        self.quirks.add(quirk);
    }

    /// The headers of the latest requests of an operation, in their order.
    #[must_use]
    pub fn headers(&self, operation: S3Operation) -> Vec<HeaderMap> {
        self.faults.headers(operation)
    }

    /// From now on every request waits for this time before it is looked at.
    pub fn delay(&self, time: Duration) {
        self.faults.set_delay(time);
    }

    /// The access key it accepts.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.options.access_key
    }

    pub(crate) fn access_keys(&self) -> AccessKeys {
        self.keys.clone()
    }

    /// Accepts this key as well, together with its session token, for `lifetime`.
    pub fn accept_temporary(&self, id: &str, secret: &str, token: &str, lifetime: Duration) {
        let expires = SystemTime::now() + lifetime;
        self.keys.add_temporary(id, secret, token, expires);
    }

    /// Signing secret of [`S3Server::access_key`].
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.options.secret_key
    }

    /// The folder with one folder for each bucket; files beside those are the server's own.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates a bucket, if it does not exist.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn create_bucket(&self, name: &str) {
        std::fs::create_dir_all(self.root.join(name)).expect("cannot make a bucket's folder");
    }

    /// Returns the server's data on disk; the view outlives faults and stops of the server.
    #[must_use]
    pub fn view(&self) -> S3View {
        S3View::new(self.root.clone(), self.store.clone())
    }

    /// As [`S3View::object`].
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.view().object(bucket, key)
    }

    /// As [`S3View::keys`].
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.view().keys(bucket)
    }

    /// Leaves a multipart upload open, like a writer that is killed, and returns its id.
    #[must_use]
    pub fn leave_upload_open(&self, bucket: &str, key: &str) -> String {
        self.store.leave_open(bucket, key)
    }

    /// Puts an empty object as consoles do to represent a folder; its key ends with a slash.
    pub fn plant_folder_marker(&self, bucket: &str, key: &str) {
        self.store.plant_folder_marker(bucket, key);
    }

    /// The multipart uploads that were created and neither completed nor aborted.
    #[must_use]
    pub fn open_multipart_uploads(&self) -> Vec<OpenUpload> {
        self.store.open_uploads()
    }

    /// How many requests of an operation have arrived, failed ones included.
    #[must_use]
    pub fn calls(&self, operation: S3Operation) -> u64 {
        self.faults.calls(operation)
    }

    /// The next `count` requests fail with `status` and are not executed.
    ///
    /// # Panics
    /// If `status` is not an HTTP status.
    pub fn fail_next(&self, operation: S3Operation, count: usize, status: u16) {
        self.faults
            .plan(operation, count, &Fault::Fail(code(status)));
    }

    /// The next `count` requests are executed, but fail with `status`.
    ///
    /// # Panics
    /// If `status` is not an HTTP status.
    pub fn fail_after_next(&self, operation: S3Operation, count: usize, status: u16) {
        self.faults
            .plan(operation, count, &Fault::FailAfter(code(status)));
    }

    /// The next `count` requests are executed, but the connection is reset before the response.
    pub fn answer_lost_next(&self, operation: S3Operation, count: usize) {
        self.faults.plan(operation, count, &Fault::AnswerLost);
    }

    /// The connections of the next `count` requests are reset after the body; nothing is executed.
    pub fn reset_next(&self, operation: S3Operation, count: usize) {
        self.faults.plan(operation, count, &Fault::Reset);
    }

    /// The next `count` requests wait for `time`, or [`S3Server::heal`], and then do their work;
    /// one whose client has gone by then does nothing.
    pub fn hang_next(&self, operation: S3Operation, count: usize, time: Duration) {
        self.faults.plan(operation, count, &Fault::Hang(time));
    }

    /// The connections of the next `count` requests are reset, and the requests are executed after `time` anyway.
    pub fn late_next(&self, operation: S3Operation, count: usize, time: Duration) {
        self.faults.plan(operation, count, &Fault::Late(time));
    }

    /// How many requests are still to be carried out late.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.faults.late()
    }

    /// The bodies of the next `count` responses end after half of their length.
    pub fn truncate_next(&self, operation: S3Operation, count: usize) {
        self.faults.plan(operation, count, &Fault::Truncate);
    }

    /// Limits the rate of every body, in and out.
    ///
    /// # Panics
    /// At a pace of 0, at which nothing would ever end.
    pub fn slow(&self, bytes_per_second: u64) {
        assert_ne!(bytes_per_second, 0, "use hang_next");
        self.faults.set_pace(bytes_per_second);
    }

    /// Takes back every fault that has not happened yet, ends the hangs and the slowness.
    pub fn heal(&self) {
        self.faults.heal();
    }

    /// Closes the port and every connection; the objects stay.
    pub async fn stop(&self) {
        self.listener.stop().await;
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    /// If it runs, or the port is taken.
    #[expect(
        clippy::unused_async,
        reason = "every server of this crate starts alike"
    )]
    pub async fn start_again(&self) {
        self.listener.start_again();
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("an HTTP status is 100 to 999")
}
