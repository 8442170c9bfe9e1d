//! What the processes of one installation share: database, Redis prefix, folders or bucket, settings.

use super::bytes_on_disk::BytesOnDisk;
use landfall_core::{
    app::App,
    config::{Config, ConfigSources},
};
use landfall_test_servers::{PostgresServer, RedisServer, S3Server, S3View};
use std::{collections::BTreeMap, path::Path};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// The bucket of installations that store in S3.
pub const BUCKET: &str = "landfall-test";

/// The settings of a test's own installation, as environment variables.
#[derive(Debug)]
pub struct Installation {
    folder: TempDir,
    settings: BTreeMap<String, String>,
    database: Option<String>,
    bucket: Option<S3View>,
}

impl Installation {
    /// On SQLite and folders, with the Redis shared by all tests.
    pub fn new() -> Self {
        // reqwest is built without a TLS provider; every test may be the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder for the installation");
        let mut new = Self {
            folder,
            settings: BTreeMap::new(),
            database: None,
            bucket: None,
        };
        let data_dir = new.folder.path().join("data").display().to_string();
        new.set("data_dir", &data_dir);
        new.set("server.bind", "127.0.0.1:0");
        new.set("redis.url", RedisServer::shared());
        new.set("redis.prefix", &format!("test-{}", Uuid::now_v7()));
        new.set("staging.min_free", "0");
        new.set("webhooks.allow_networks", "127.0.0.0/8");
        new.set("webhooks.base_delay", "100ms");
        new.set("log.level", "warn,landfall=info");
        new
    }

    /// Uses its own database on the PostgreSQL shared by all tests.
    ///
    /// # Panics
    /// Without the feature `every-server`. A test that needs PostgreSQL must be ignored then, with the reason.
    pub async fn on_postgres(&mut self) {
        if !cfg!(feature = "every-server") {
            panic!(
                "mark this test: #[cfg_attr(not(feature = \"every-server\"), ignore = \"needs PostgreSQL: …\")]"
            );
        }
        let server = PostgresServer::shared();
        let url = server.clone_database(migrated_template().await).await;
        self.set("database.url", &url);
        self.database = url.rsplit('/').next().map(str::to_owned);
    }

    /// Stores objects in a bucket of this server.
    pub fn store_in(&mut self, server: &S3Server) {
        server.create_bucket(BUCKET);
        self.bucket = Some(server.view());
        self.set("storage.backend", "s3");
        self.set_raw("AWS_STORAGE_BUCKET_NAME", BUCKET);
        self.set_raw("AWS_S3_ENDPOINT_URL", &server.endpoint());
        self.set_raw("AWS_S3_REGION_NAME", "us-east-1");
        self.set_raw("AWS_ACCESS_KEY_ID", server.access_key());
        self.set_raw("AWS_SECRET_ACCESS_KEY", server.secret_key());
    }

    /// Whether it stores in S3.
    pub fn is_in_a_bucket(&self) -> bool {
        self.settings.contains_key("AWS_STORAGE_BUCKET_NAME")
    }

    /// Returns access to its bytes on disk.
    pub fn bytes_on_disk(&self, app: &App) -> BytesOnDisk {
        let bucket = self
            .bucket
            .clone()
            .map(|server| (server, BUCKET.to_owned()));
        BytesOnDisk::new(app, bucket)
    }

    /// Sets `section.key`.
    pub fn set(&mut self, key: &str, value: &str) {
        let name = format!("LANDFALL__{}", key.to_uppercase().replace('.', "__"));
        self.set_raw(&name, value);
    }

    /// Sets an environment variable.
    pub fn set_raw(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// Removes a setting.
    pub fn unset_raw(&mut self, name: &str) {
        self.settings.remove(name);
    }

    /// Returns the environment for a process.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.settings.clone().into_iter().collect()
    }

    /// Returns the configuration as a process reads it.
    pub fn config(&self) -> Config {
        Config::load(ConfigSources {
            file: None,
            environment: self.environment(),
        })
        .expect("the test's settings are allowed")
    }

    /// The folder with all of its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A migrated database to clone: migrating every test's database would take most of its time.
async fn migrated_template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let migrate = async |url: String| {
        let db = landfall_core::db::Database::open(&url.into(), 2)
            .await
            .expect("the template opens");
        db.migrate_up().await.expect("the template is migrated");
        db.close()
            .await
            .expect("the template is closed, or it cannot be cloned");
    };
    TEMPLATE
        .get_or_init(|| PostgresServer::shared().template(migrate))
        .await
}
