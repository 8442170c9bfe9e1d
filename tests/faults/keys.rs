//! A storage key is used once: no re-upload, deletion, purge, drop or late request removes or overwrites the object of
//! a stored file.
//!
//! `LANDFALL_TEST_INTERLEAVINGS` sets their number, `LANDFALL_TEST_SEED` the first seed.

use super::cluster::{AFTER_A_KILL, Cluster};
use crate::support::{Installation, TestApp, app::SOON};
use entity::{
    FileId,
    file::{self, FileStatus},
};
use futures::{TryStreamExt, future::join_all};
use landfall_core::{digest::Sha256Digest, files, finalize::Finalizer, storage::StorageKey};
use landfall_test_servers::{S3Operation, S3Server, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};

const STEPS: usize = 14;
const WORKERS: usize = 3;

/// Maximum delay of a request that the store executes late.
const LATE_MS: u64 = 300;

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

/// The state of one interleaving; cheap to clone.
#[derive(Clone)]
struct Interleaving {
    app: Arc<TestApp>,
    server: Arc<S3Server>,
    workers: Vec<Finalizer>,
    /// The SHA-256 of each upload.
    sent: Arc<std::sync::Mutex<HashMap<FileId, String>>>,
    faults: Arc<AtomicUsize>,
}

impl Interleaving {
    async fn start(overwrite: bool) -> Self {
        let server = Arc::new(S3Server::start().await);
        let mut builder = TestApp::builder().s3(&server).workers(&[]);
        if overwrite {
            builder
                .installation
                .set_raw("AWS_S3_FILE_OVERWRITE", "true");
        }
        let app = Arc::new(builder.start().await);
        assert_eq!(app.parts.app.config.overwrites(), overwrite);
        let workers =
            (0..WORKERS).map(|worker| Finalizer::new(&app.parts.app, &format!("worker-{worker}")));
        Self {
            workers: workers.collect(),
            app,
            server,
            sent: Arc::default(),
            faults: Arc::default(),
        }
    }

    async fn upload(&self, name: &str, random: &mut StdRng) -> FileId {
        let bytes: Vec<u8> = (0..random.random_range(1..2000))
            .map(|_| random.random())
            .collect();
        let sha256 = Sha256Digest::compute(&bytes).to_string();
        let file = self.app.upload(name, bytes).await;
        let id = FileId(file["id"].as_str().expect("an id").parse().expect("an id"));
        self.sent.lock().expect("no panic").insert(id, sha256);
        id
    }

    /// One concurrent action.
    fn step(&self, id: FileId, random: &mut StdRng) -> JoinHandle<()> {
        let scene = self.clone();
        let (what, fault) = (random.random_range(0..10), random.random_range(0..4));
        let late = Duration::from_millis(random.random_range(1..LATE_MS));
        let dropped_after = Duration::from_millis(random.random_range(0..40));
        let worker = random.random_range(0..WORKERS);
        tokio::spawn(async move {
            let operation = match what {
                0..5 => S3Operation::PutObject,
                _ => S3Operation::DeleteObject,
            };
            if fault == 0 {
                scene.server.late_next(operation, 1, late);
                scene.faults.fetch_add(1, Ordering::SeqCst);
            }
            let landfall = &scene.app.parts.app;
            let work = async {
                match what {
                    0..5 => drop(scene.workers[worker].finalize(id).await),
                    5..7 => {
                        let path = format!("/v1/files/{id}");
                        let deleted = scene.app.delete(&path).send().await;
                        deleted.expect("a response");
                    }
                    _ => drop(files::purge(landfall, id).await),
                }
            };
            match fault {
                // As if its process had been killed: requests it has sent may still be executed.
                1 => drop(timeout(dropped_after, work).await),
                _ => work.await,
            }
        })
    }

    async fn interleave(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let name = format!("{seed}.bin");
        let mut ids = vec![self.upload(&name, &mut random).await];
        let mut steps = Vec::new();
        for _ in 0..STEPS {
            if random.random_range(0..4) == 0 {
                ids.push(self.upload(&name, &mut random).await);
            }
            let id = ids[random.random_range(0..ids.len())];
            steps.push(self.step(id, &mut random));
            if random.random_range(0..8) == 0 {
                // Every lease runs out.
                self.app.parts.app.clock.advance(Duration::from_secs(31));
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
        }
        for step in join_all(steps).await {
            step.expect("a step ends without a panic");
        }
        self.server.heal();
        wait_until(SOON, async || match self.server.late() {
            0 => Ok(()),
            late => Err(format!("{late} requests are late")),
        })
        .await;
        self.bring_to_rest(&ids, seed).await;
        self.check(&ids, seed).await;
    }

    async fn bring_to_rest(&self, ids: &[FileId], seed: u64) {
        let landfall = &self.app.parts.app;
        wait_until(SOON, async || {
            landfall.clock.advance(Duration::from_secs(31));
            let mut left = 0;
            for id in ids {
                let outcome = self.workers[0].finalize(*id).await;
                let file = self.row(*id).await;
                let is_final = matches!(file.status, FileStatus::Stored | FileStatus::Deleted);
                if !is_final {
                    left += 1;
                    assert_ne!(
                        file.status,
                        FileStatus::Failed,
                        "seed {seed}: {file:?} {outcome:?}"
                    );
                }
                if file.status == FileStatus::Deleted {
                    drop(files::purge(landfall, *id).await);
                }
            }
            match left {
                0 => Ok(()),
                left => Err(format!("seed {seed}: {left} files are not final")),
            }
        })
        .await;
    }

    async fn row(&self, id: FileId) -> file::Model {
        let db = self.app.parts.app.db.read();
        let row = file::Entity::find_by_id(id).one(db).await;
        row.expect("the database").expect("the row")
    }

    async fn check(&self, ids: &[FileId], seed: u64) {
        for id in ids {
            let file = self.row(*id).await;
            if file.status != FileStatus::Stored {
                continue;
            }
            let key: StorageKey = file
                .storage_key
                .as_deref()
                .expect("a key")
                .parse()
                .expect("a key");
            let read = self.app.parts.app.storage.read(&key, None).await;
            let bytes: Vec<_> = match read {
                Ok(bytes) => bytes.try_collect().await.expect("the object can be read"),
                Err(error) => panic!("seed {seed}: the object of {file:?} is gone: {error}"),
            };
            let found = Sha256Digest::compute(&bytes.concat()).to_string();
            let sent = self.sent.lock().expect("no panic")[id].clone();
            assert_eq!(
                found, sent,
                "seed {seed}: another file's bytes are at the key of {file:?}"
            );
        }
        let keys: Vec<Option<String>> = {
            let rows = file::Entity::find().filter(file::Column::Id.is_in(ids.iter().copied()));
            let rows = rows
                .all(self.app.parts.app.db.read())
                .await
                .expect("the rows");
            rows.into_iter().map(|file| file.storage_key).collect()
        };
        let mut used: Vec<_> = keys.iter().flatten().collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(
            used.len(),
            keys.iter().flatten().count(),
            "seed {seed}: a key was used twice"
        );
    }
}

async fn all_interleavings(overwrite: bool) {
    let first = number("LANDFALL_TEST_SEED", rand::random::<u32>().into());
    let count = number("LANDFALL_TEST_INTERLEAVINGS", 12);
    println!("LANDFALL_TEST_SEED={first} LANDFALL_TEST_INTERLEAVINGS={count}");
    let scene = Interleaving::start(overwrite).await;
    for seed in first..first + count {
        scene.interleave(seed).await;
    }
    let faults = scene.faults.load(Ordering::SeqCst);
    println!("{faults} requests were carried out late");
    assert!(faults > 0, "no fault happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_interleaving_removes_the_object_of_a_stored_file() {
    all_interleavings(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_interleaving_removes_the_object_of_a_stored_file_where_files_overwrite() {
    all_interleavings(true).await;
}

/// A purge whose worker is killed during its DELETE, which the store executes long after the name was uploaded again.
#[tokio::test(flavor = "multi_thread")]
async fn late_deletion_of_a_killed_worker_hits_no_other_file() {
    for overwrite in [false, true] {
        let s3 = S3Server::start().await;
        let mut installation = Installation::new();
        installation.store_in(&s3);
        if overwrite {
            installation.set_raw("AWS_S3_FILE_OVERWRITE", "true");
        }
        let cluster = Cluster::start(installation).await;
        let mut doomed = cluster.worker(None);
        let first = cluster.upload("same.txt", b"first".to_vec()).await;
        cluster.wait_for(&first, "stored", AFTER_A_KILL).await;
        let before = s3.calls(S3Operation::DeleteObject);
        s3.late_next(S3Operation::DeleteObject, 3, Duration::from_secs(8));
        let path = format!("{}/v1/files/{first}", cluster.api.url);
        let deleted = cluster.client.delete(path).send().await;
        assert_eq!(deleted.expect("a response").status(), 204);
        wait_until(AFTER_A_KILL, async || {
            (s3.calls(S3Operation::DeleteObject) > before)
                .then_some(())
                .ok_or("no purge")
        })
        .await;
        doomed.kill().await;
        assert!(s3.late() > 0, "the deletion is under way");
        let _next = cluster.worker(None);
        let second = cluster.upload("same.txt", b"second".to_vec()).await;
        cluster.wait_for(&second, "stored", AFTER_A_KILL * 3).await;
        wait_until(AFTER_A_KILL, async || match s3.late() {
            0 => Ok(()),
            late => Err(format!("{late} requests are late")),
        })
        .await;
        let content = format!("{}/v1/files/{second}", cluster.api.url);
        let file: serde_json::Value = cluster
            .client
            .get(content)
            .send()
            .await
            .expect("a response")
            .json()
            .await
            .expect("JSON");
        let url = file["url"].as_str().expect("a URL");
        let bytes = cluster
            .client
            .get(url)
            .send()
            .await
            .expect("a response")
            .bytes()
            .await;
        assert_eq!(
            &bytes.expect("a body")[..],
            b"second",
            "overwrite: {overwrite}"
        );
    }
}
